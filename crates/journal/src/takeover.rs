//! What comes before recovery: the order of the next incarnation, and that none before it writes any more (section 7.2 of docs/design.md).

use proto::{CallError, CallErrorKind, Request, Response, Transport};
use units::{Epoch, MediumId, PAGE};

use crate::format::earlier_version;
use crate::reader::ask;
use crate::{RecoverError, SegmentHeader};

/// How often a medium that gave no answer is asked again.
const ATTEMPTS: usize = 3;

/// The highest epoch that `media` know of: of segments, and of whom they were sealed for.
///
/// # Errors
/// [`crate::RecoverErrorKind::Format`] when a medium has segments of an earlier format.
pub async fn newest_epoch(
    transport: &dyn Transport,
    media: &[MediumId],
    key: &[u8; 32],
) -> Result<Epoch, RecoverError> {
    let of_one = |medium: MediumId| async move {
        let mut newest = Epoch(0);
        if let Ok(Response::Segments(pages)) = ask(transport, medium, Request::SegmentList).await {
            if let Some(earlier) = pages.iter().find_map(|page| earlier_version(page.as_ref())) {
                return Err(RecoverError::format(medium, earlier));
            }
            let headers = pages.iter().filter_map(|page| SegmentHeader::decode(page.as_ref(), key).ok());
            newest = headers.map(|header| header.id.epoch).max().unwrap_or_default();
        }
        match ask(transport, medium, Request::Info { extent: PAGE as u64 }).await {
            Ok(Response::Info(info)) => Ok(newest.max(info.sealed)),
            _ => Ok(newest),
        }
    };
    let answers = seam::join_all(media.iter().map(|medium| of_one(*medium))).await;
    Ok(answers.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or_default())
}

/// Has `media` take nothing from incarnations before the one that `transport` is of; gives those that will not. What is
/// recovered from them is all that an incarnation before was ever told of as done.
///
/// # Errors
/// `Fenced` when a later incarnation was there first.
pub async fn seal_media(transport: &dyn Transport, media: &[MediumId]) -> Result<Vec<MediumId>, CallError> {
    let of_one = |medium: MediumId| async move {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match transport.call(medium, Request::Seal).await {
                Ok(_) => return Ok(medium),
                Err(error) if error.kind == CallErrorKind::Unreachable => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        let none = || CallError { kind: CallErrorKind::Unreachable, medium, reason: "no answer".to_owned() };
        Err(last.unwrap_or_else(none))
    };
    let mut sealed = Vec::new();
    for answer in seam::join_all(media.iter().map(|medium| of_one(*medium))).await {
        match answer {
            Ok(medium) => sealed.push(medium),
            Err(error) if error.kind == CallErrorKind::Fenced => return Err(error),
            Err(error) => tracing::warn!(%error, "a medium does not let go of the incarnation before"),
        }
    }
    Ok(sealed)
}
