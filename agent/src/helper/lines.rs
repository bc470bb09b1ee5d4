//! Lines over the helper's socket, both ends: JSON, one a line, a file's descriptor beside a request.
//!
//! It must never keep more of a line than a request may have, more descriptors than one, or wait for ever for a caller that hangs.

use std::io::{self, BufRead as _, BufReader, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::protocol::{Answer, Request};

/// A request's most bytes.
const MAX_LINE_BYTES: usize = 64 << 10;
/// A caller that says nothing for so long is let go.
const SILENT: Duration = Duration::from_secs(120);
/// A caller that does not read for so long is not told any more.
const UNREAD: Duration = Duration::from_secs(3);

/// What came.
pub(super) enum Received {
    Request(Request, Option<OwnedFd>),
    Bad(String),
    End,
}

/// One caller.
pub(super) struct Caller {
    stream: UnixStream,
    begun: Vec<u8>,
    deaf: bool,
}

impl Caller {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(SILENT))?;
        stream.set_write_timeout(Some(UNREAD))?;
        Ok(Self { stream, begun: Vec::new(), deaf: false })
    }

    /// The next request.
    pub(super) fn receive(&mut self) -> io::Result<Received> {
        let mut file = None;
        let line = loop {
            if let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
                let rest = self.begun.split_off(end + 1);
                break std::mem::replace(&mut self.begun, rest);
            }
            if self.begun.len() > MAX_LINE_BYTES {
                return Ok(Received::Bad(format!("expected a line of at most {MAX_LINE_BYTES} bytes")));
            }
            if self.receive_some(&mut file)? == 0 {
                return Ok(Received::End);
            }
        };
        Ok(match serde_json::from_slice(&line) {
            Ok(request) => Received::Request(request, file),
            Err(error) => Received::Bad(error.to_string()),
        })
    }

    fn receive_some(&mut self, file: &mut Option<OwnedFd>) -> io::Result<usize> {
        let mut bytes = [0; 8192];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(&self.stream, &mut [IoSliceMut::new(&mut bytes)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                // More than one is a mistake: the first counts, the others are closed.
                for found in files {
                    file.get_or_insert(found);
                }
            }
        }
        self.begun.extend_from_slice(&bytes[..got.bytes]);
        Ok(got.bytes)
    }

    /// Tells it; one that does not read is not waited for again.
    pub(super) fn tell(&mut self, answer: &Answer) {
        if self.deaf {
            return;
        }
        let told = serde_json::to_vec(answer).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.stream.write_all(&line)
        });
        self.deaf = told.is_err();
    }
}

/// The asking end, for commands on the box.
pub(crate) struct Conversation {
    reader: BufReader<UnixStream>,
}

impl Conversation {
    /// Reaches the helper.
    ///
    /// # Errors
    /// When it isn't there.
    pub(crate) fn open(socket: &Path) -> io::Result<Self> {
        Ok(Self { reader: BufReader::new(UnixStream::connect(socket)?) })
    }

    /// Asks, and hears every answer up to the last, which is returned.
    ///
    /// # Errors
    /// When the helper goes away before that.
    pub(crate) fn ask(
        &mut self,
        request: &Request,
        file: Option<&std::fs::File>,
        hear: &mut dyn FnMut(mainstay_shared::patch::PatchProgress),
    ) -> io::Result<Answer> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.send(&line, file)?;
        loop {
            let mut answer = String::new();
            if self.reader.read_line(&mut answer)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match serde_json::from_str(&answer)? {
                Answer::Progress(progress) => hear(progress),
                last => return Ok(last),
            }
        }
    }

    fn send(&mut self, line: &[u8], file: Option<&std::fs::File>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let files = file.map(|file| [file.as_fd()]);
        if let Some(files) = &files {
            beside.push(SendAncillaryMessage::ScmRights(files));
        }
        let stream = self.reader.get_mut();
        let sent = sendmsg(&*stream, &[IoSlice::new(line)], &mut beside, SendFlags::NOSIGNAL)?;
        stream.write_all(line.get(sent..).unwrap_or_default())
    }
}
