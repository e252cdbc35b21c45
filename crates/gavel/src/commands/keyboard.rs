//! What is typed here, as the input of an interactive program.

use gavel_core::job::Tty;
use gavel_sandbox::{Bell, LiveInput, Typed};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{Read, Result};
use std::sync::mpsc::{SyncSender, sync_channel};
use tokio::signal::unix::{SignalKind, signal};

/// Pieces that may wait until the program reads.
const AHEAD: usize = 16;

pub struct Keyboard {
    pub input: LiveInput,
    /// Of our terminal, to be put back.
    modes: Option<Termios>,
}

impl Keyboard {
    /// From now on our stdin is the program's. With `raw` all keys go to it, Ctrl-C too, as long as this lives.
    pub fn open(raw: bool) -> Result<Self> {
        let bell = Bell::new()?;
        let (keys, typed) = sync_channel(AHEAD);
        let sender = Sender { keys, bell: bell.clone() };
        let mut modes = None;
        if raw && isatty(std::io::stdin()) {
            let before = tcgetattr(std::io::stdin())?;
            let mut all_keys = before.clone();
            all_keys.make_raw();
            tcsetattr(std::io::stdin(), OptionalActions::Now, &all_keys)?;
            modes = Some(before);
            let sender = sender.clone();
            std::thread::spawn(move || follow_size(&sender));
        }
        std::thread::spawn(move || read_keys(&sender));
        Ok(Self { input: LiveInput::new(bell, move || typed.try_recv().ok()), modes })
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        if let Some(modes) = &self.modes {
            // If the terminal is gone there is nobody to put it back for.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, modes);
        }
    }
}

/// Of our terminal; the usual one where we have none.
pub fn size() -> Tty {
    let found = tcgetwinsize(std::io::stdout()).or_else(|_| tcgetwinsize(std::io::stdin()));
    let found = found.ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
    found.map_or(Tty { rows: 24, cols: 80 }, |size| Tty { rows: size.ws_row, cols: size.ws_col })
}

#[derive(Clone)]
struct Sender {
    keys: SyncSender<Typed>,
    bell: Bell,
}

impl Sender {
    /// Waits for room; false when nobody takes anything any more.
    fn send(&self, typed: Typed) -> bool {
        let sent = self.keys.send(typed).is_ok();
        self.bell.ring();
        sent
    }
}

fn read_keys(sender: &Sender) {
    let mut buffer = [0; 4096];
    // An error is an end, too: a terminal that went away.
    while let Ok(got @ 1..) = std::io::stdin().read(&mut buffer) {
        if !sender.send(Typed::Bytes(buffer[..got].to_vec())) {
            return;
        }
    }
    sender.send(Typed::End);
}

fn follow_size(sender: &Sender) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
    runtime.block_on(async {
        let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
        while changes.recv().await.is_some() && sender.send(Typed::Resize(size())) {}
    });
}
