//! Output as it arrives, in pieces that cut no character: what event streams and sockets share.

use gavel_store::Stream;

/// The beginnings of characters whose other bytes have not come yet, by stream.
#[derive(Default)]
pub struct Pieces([Vec<u8>; 3]);

impl Pieces {
    /// What can be shown now: all but the beginning of a character at its end.
    pub fn add(&mut self, stream: Stream, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let tail = &mut self.0[stream as usize];
        let mut bytes = if tail.is_empty() { bytes } else { [std::mem::take(tail), bytes].concat() };
        if let Err(error) = std::str::from_utf8(&bytes)
            && error.error_len().is_none()
        {
            *tail = bytes.split_off(error.valid_up_to());
        }
        (!bytes.is_empty()).then_some(bytes)
    }

    /// Nothing more comes of this attempt: what is left.
    pub fn rest(&mut self) -> impl Iterator<Item = (Stream, Vec<u8>)> + use<> {
        let streams = [Stream::CompileOutput, Stream::Stdout, Stream::Stderr];
        let tails = streams.map(|stream| (stream, std::mem::take(&mut self.0[stream as usize])));
        tails.into_iter().filter(|(_, tail)| !tail.is_empty())
    }
}

pub fn name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
        Stream::CompileOutput => "compile_output",
    }
}
