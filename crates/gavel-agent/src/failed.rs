//! A failure names its step.

use rustix::io::Errno;
use std::borrow::Cow;

#[derive(Debug, Clone)]
pub struct Failed {
    pub step: Cow<'static, str>,
    pub errno: Errno,
}

pub trait At<T> {
    /// Names the step that this result belongs to.
    fn at(self, step: impl Into<Cow<'static, str>>) -> Result<T, Failed>;
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, step: impl Into<Cow<'static, str>>) -> Result<T, Failed> {
        self.map_err(|errno| Failed { step: step.into(), errno })
    }
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, step: impl Into<Cow<'static, str>>) -> Result<T, Failed> {
        self.map_err(|e| Failed { step: step.into(), errno: Errno::from_io_error(&e).unwrap_or(Errno::IO) })
    }
}
