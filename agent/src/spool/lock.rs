//! One agent at a time on a spool: the lock file's lock, held for the life of the store.
//!
//! The kernel lets go of it when the process ends, however it ends. The file itself says nothing and stays.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::SpoolError;

const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Takes the spool's single-instance lock.
pub(super) fn lock(dir: &Path) -> Result<File, SpoolError> {
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(|source| SpoolError::Io { path: path.clone(), source })?;
    // A killed agent holds its lock until the kernel has buried it; a supervisor may be quicker than that.
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(std::fs::TryLockError::Error(source)) => return Err(SpoolError::Io { path, source }),
        }
    }
    Err(SpoolError::InUse { path })
}
