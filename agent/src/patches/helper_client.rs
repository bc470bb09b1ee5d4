//! Speaks to the helper: one question at a time, aside, since the helper may take long and its disk may hang.
//!
//! A helper that isn't there is the sign of a box that was not set up for patches: told once, asked again later.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::progress::Progress;
use crate::helper::Conversation;
use crate::helper::protocol::{Answer, Request};
use crate::probes::aside::Aside;

/// So often, and so far apart, a helper that just does not listen is tried.
const BETWEEN_HELPERS: u32 = 10;
const AGAIN: Duration = Duration::from_millis(200);

/// How long an answer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Looking something up.
    Looking,
    /// Copying and verifying a file.
    Taking,
    /// Putting a file in place, its scripts included.
    Applying,
}

impl Limit {
    fn span(self) -> Duration {
        Duration::from_secs(match self {
            Self::Looking => 30,
            Self::Taking => 3600,
            Self::Applying => 6 * 3600,
        })
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelperError {
    /// Nobody listens.
    #[error("no helper: this box is not set up for patches")]
    Absent,
    /// It went away or did not answer in time.
    #[error("the helper did not answer: {0}")]
    Lost(String),
}

/// The way to the helper.
#[derive(Debug, Clone)]
pub(crate) struct HelperClient {
    socket: PathBuf,
    aside: Aside,
}

impl HelperClient {
    /// The helper at `socket`, asked on a thread of `aside`.
    pub(crate) fn at(socket: PathBuf, aside: Aside) -> Self {
        Self { socket, aside }
    }

    /// Asks; what it says before its last answer is shown in `progress`.
    ///
    /// # Errors
    /// [`HelperError`] when there is no last answer.
    pub(crate) async fn ask(
        &self,
        request: Request,
        file: Option<File>,
        limit: Limit,
        progress: &Progress,
    ) -> Result<Answer, HelperError> {
        let (socket, progress) = (self.socket.clone(), progress.clone());
        let asked = self.aside.run("the helper", limit.span(), move || {
            let mut helper = open(&socket).map_err(absent_or_lost)?;
            let answer = helper.ask(&request, file.as_ref(), &mut |told| progress.show(&told.offer_id, told.step, told.percent));
            answer.map_err(|error| HelperError::Lost(error.to_string()))
        });
        asked.await.map_err(|error| HelperError::Lost(error.to_string()))?
    }
}

/// One helper that ends for the next leaves nobody listening for a moment.
fn open(socket: &Path) -> io::Result<Conversation> {
    for _ in 0..BETWEEN_HELPERS {
        match Conversation::open(socket) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::thread::sleep(AGAIN),
            opened => return opened,
        }
    }
    Conversation::open(socket)
}

fn absent_or_lost(error: io::Error) -> HelperError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => HelperError::Absent,
        _ => HelperError::Lost(error.to_string()),
    }
}
