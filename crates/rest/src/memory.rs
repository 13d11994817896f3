//! Memory of a connection for its one request and the answer to it.

use std::sync::Arc;

use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use axum::response::Response;
use budget::{Account, Budget};
use tokio::sync::Mutex;

use crate::DEFINITION_BODY_BYTES_MAX;

/// Bytes of the budget that are set aside for a connection: its buffers, and a request and an answer as most are. So the
/// interface answers when disks' clients hold all the rest.
const SHARE: usize = 64 << 10;

/// What one connection holds of the budget, until it ends.
#[derive(Clone)]
pub(crate) struct Memory(Option<Arc<Mutex<Account>>>);

impl Memory {
    /// Of a connection, which is one of few.
    pub(crate) fn of(budget: &Budget) -> Self {
        // Where not even that is there, the interface is what shows it.
        Self(budget.open_first(SHARE).map(|account| Arc::new(Mutex::new(account))))
    }

    /// Bytes that `request` will hold: what it says itself, or the most that is read.
    pub(crate) fn of_request(request: &Request) -> usize {
        let said =
            request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let bytes = match said {
            Some(bytes) => bytes,
            None if request.body().is_end_stream() => 0,
            None => DEFINITION_BODY_BYTES_MAX,
        };
        bytes.min(DEFINITION_BODY_BYTES_MAX)
    }

    /// Bytes of an answer.
    pub(crate) fn of_answer(answer: &Response) -> usize {
        usize::try_from(answer.body().size_hint().lower()).unwrap_or(usize::MAX)
    }

    /// Gives back what it holds, and waits for `bytes`.
    pub(crate) async fn hold(&self, bytes: usize) {
        if let Some(account) = &self.0 {
            let mut account = account.lock().await;
            let held = account.held();
            account.give_back(held);
            account.take(bytes.min(budget::TAKE_MAX)).await;
        }
    }
}
