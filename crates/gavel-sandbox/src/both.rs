//! Two backends as one, for servers whose languages do not all have the same: commands with an image go
//! to the one, commands without to the other.

use crate::{Backend, Cancel, Command, Fault, OnOutput, Sandbox};
use gavel_core::Facts;
use std::sync::Arc;

pub struct Both {
    host: Arc<dyn Backend>,
    images: Arc<dyn Backend>,
}

impl Both {
    /// `host` runs what sees the host's files, `images` what sees an image's.
    pub fn new(host: Arc<dyn Backend>, images: Arc<dyn Backend>) -> Self {
        Self { host, images }
    }
}

impl Backend for Both {
    fn name(&self) -> &'static str {
        "native and docker"
    }

    fn check(&self) -> Result<(), Fault> {
        self.host.check().and_then(|()| self.images.check())
    }

    fn open(&self, slot: u32) -> Result<Box<dyn Sandbox>, Fault> {
        Ok(Box::new(BothSandbox { host: self.host.open(slot)?, images: self.images.open(slot)? }))
    }

    fn close(&self) {
        self.host.close();
        self.images.close();
    }
}

struct BothSandbox {
    host: Box<dyn Sandbox>,
    images: Box<dyn Sandbox>,
}

impl Sandbox for BothSandbox {
    fn shares_files(&self, image: Option<&str>) -> bool {
        let sandbox = if image.is_some() { &self.images } else { &self.host };
        sandbox.shares_files(image)
    }

    fn run(&mut self, command: &Command, cancel: &Cancel, on_output: OnOutput) -> Result<Facts, Fault> {
        let sandbox = if command.image.is_some() { &mut self.images } else { &mut self.host };
        sandbox.run(command, cancel, on_output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, printed};
    use crate::{Collect, OnOutputLimit};
    use gavel_core::Limits;
    use gavel_core::language::Scratch;

    #[test]
    fn the_image_decides() {
        let backend = |says: &'static str| Arc::new(Fake::new(move |_, _, _| Ok(printed(says))));
        let both = Both::new(backend("host"), backend("image"));
        let mut sandbox = both.open(0).unwrap();
        for (image, wanted) in [(None, "host"), (Some("gavel-c"), "image")] {
            let command = Command {
                image,
                root: None,
                argv: Vec::new(),
                env: Vec::new(),
                stdin: b"",
                live: None,
                files: Vec::new(),
                limits: Limits::standard(),
                scratch: Scratch::for_compile(),
                stderr_to_stdout: false,
                network: false,
                on_output_limit: OnOutputLimit::Stop,
                collect: Collect::default(),
            };
            let facts = sandbox.run(&command, &Cancel::new().unwrap(), &mut |_, _| ()).unwrap();
            assert_eq!(facts.stdout, wanted.as_bytes());
        }
    }
}
