//! Errors of the engine in the words of the contract, with what to do next.

use api::{Error, code};

use crate::admission::FULL_BELOW;
use crate::error::{EngineError, EngineErrorKind};

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        let (code, hint) = match error.kind {
            EngineErrorKind::NotFound => (code::DISK_NOT_FOUND, None),
            EngineErrorKind::Exists => (code::DISK_EXISTS, None),
            EngineErrorKind::NoSpace if error.reason == FULL_BELOW => {
                let hint = "make room on the file systems that hold the media: writes go on by themselves";
                (code::NO_SPACE, Some(hint))
            }
            EngineErrorKind::NoSpace => {
                let hint = "empty the trash (`trash empty`), delete what is not needed, then free what it took (`clean`); or add media (`media add`); `status` says what is short and what makes how much room";
                (code::NO_SPACE, Some(hint))
            }
            EngineErrorKind::TooFewMedia => {
                let hint = "`status` lists the media; bring missing ones back";
                (code::TOO_FEW_MEDIA, Some(hint))
            }
            EngineErrorKind::Lost => {
                let hint = "bring missing media back; else restore from a copy";
                (code::DATA_LOST, Some(hint))
            }
            EngineErrorKind::Held => {
                let hint = "`snapshot show` says until when; nothing ends a hold before";
                (code::SNAPSHOT_HELD, Some(hint))
            }
            EngineErrorKind::Invalid => (code::INVALID_REQUEST, None),
            EngineErrorKind::Format => {
                let hint = "nothing was changed: start the site with the version of holdfast that wrote it";
                (code::INVALID_REQUEST, Some(hint))
            }
            EngineErrorKind::Busy => (code::BUSY, None),
            EngineErrorKind::Bug => {
                let hint = "nothing acknowledged is lost; please report it with the server's log";
                (code::INTERNAL, Some(hint))
            }
            EngineErrorKind::Cancelled => (code::TASK_ENDED, None),
            EngineErrorKind::Closed => {
                let hint = "the server is stopping, or must be started again";
                (code::CLOSING, Some(hint))
            }
        };
        let said = Self::new(code, error.reason.clone()).caused_by(error);
        match hint {
            Some(hint) => said.hint(hint),
            None => said,
        }
    }
}
