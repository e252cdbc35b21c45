//! A terminal for one command: our end of it, the command's end, and where it finds it by name.
//!
//! On a host the pair is alone in a file system of its own, in which nobody can make another one; it is mounted
//! where only this command sees it. A container has such a file system for all its commands. Either way the
//! terminal ends with the command, since we hold the only other end.

use crate::container;
use crate::failed::{At, Failed};
use gavel_agent::wire::Size;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, chmodat, mkdirat, mknodat, open, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{InputModes, OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use std::os::fd::{AsFd, OwnedFd};

pub struct Terminal {
    /// Our end: what is typed goes in, what the command prints comes out. It never blocks.
    pub master: OwnedFd,
    /// The command's end.
    pub slave: OwnedFd,
    /// What is to be mounted at /dev/pts.
    pub mount: Option<OwnedFd>,
}

const OUR_END: OFlags = OFlags::RDWR.union(OFlags::NOCTTY).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

impl Terminal {
    pub fn on_host(uid: u32, gid: u32, size: Size) -> Result<Self, Failed> {
        let step = "make a file system for a terminal";
        let fs = fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC).at(step)?;
        // The command may open its own terminal by name, and has no right to make more of them.
        for (key, value) in [("uid", uid), ("gid", gid), ("max", 1)] {
            fsconfig_set_string(&fs, key, value.to_string()).at(step)?;
        }
        fsconfig_set_string(&fs, "mode", "600").at(step)?;
        fsconfig_set_string(&fs, "ptmxmode", "000").at(step)?;
        fsconfig_create(&fs).at(step)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).at(step)?;
        let master = openat(&mount, "ptmx", OUR_END, Mode::empty()).at("make a terminal")?;
        Self::pair(master, Some(mount), size)
    }

    /// As the command's user, whose terminal it is then.
    pub fn in_container(uid: u32, gid: u32, size: Size) -> Result<Self, Failed> {
        let master = container::as_user(uid, gid, || open("/dev/pts/ptmx", OUR_END, Mode::empty()));
        Self::pair(master.at("make a terminal")?, None, size)
    }

    fn pair(master: OwnedFd, mount: Option<OwnedFd>, size: Size) -> Result<Self, Failed> {
        unlockpt(&master).at("unlock a terminal")?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = ioctl_tiocgptpeer(&master, flags).at("open a terminal")?;
        resize(&master, size)?;
        let mut modes = tcgetattr(&slave).at("read a terminal's modes")?;
        // Backspace takes a character, not a byte.
        modes.input_modes |= InputModes::IUTF8;
        tcsetattr(&slave, OptionalActions::Now, &modes).at("set a terminal's modes")?;
        Ok(Self { master, slave, mount })
    }
}

pub fn resize(master: impl AsFd, size: Size) -> Result<(), Failed> {
    let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).at("resize a terminal")
}

/// What /dev has for a command with a terminal only. `dev` is the worker's /dev, writable for us alone.
pub fn furnish(dev: &OwnedFd, rootless: bool) -> Result<(), Failed> {
    mkdirat(dev, "pts", Mode::from_raw_mode(0o755)).at("make /dev/pts")?;
    // Without privileges no device can be made. Programs that look for it have another way.
    if !rootless {
        let mode = Mode::from_raw_mode(0o666);
        mknodat(dev, "tty", FileType::CharacterDevice, mode, crate::sys::device_number(5, 0)).at("make /dev/tty")?;
        chmodat(dev, "tty", mode, AtFlags::empty()).at("open /dev/tty to all")?;
    }
    Ok(())
}

/// The command is gone, and what was mounted in it with it.
pub fn clear(dev: &OwnedFd) -> Result<(), Failed> {
    for (name, flags) in [("tty", AtFlags::empty()), ("pts", AtFlags::REMOVEDIR)] {
        match unlinkat(dev, name, flags) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e).at("clear /dev of a terminal"),
        }
    }
    Ok(())
}
