//! Reads. etcd bounds its answers by keys alone, so a page is asked for in chunks that grow while values are small.

use etcd_client::GetOptions;
use meta::{Error, ErrorKind, KeyRange, KeyValue, Page, RANGE_BYTES_MAX, RANGE_KEYS_MAX, Result, Revision};

use crate::Etcd;
use crate::fault::Fault;
use crate::members::Effect;
use crate::names::{Span, revision, signed};

/// Keys of the first chunk. etcd puts an answer together in RAM before it sends it, and values may have a MiB.
const CHUNK_KEYS: usize = 64;
/// Keys of a chunk, at most.
const CHUNK_KEYS_MAX: usize = 512;
/// Chunks grow while they are no longer than this, in bytes.
const CHUNK_BYTES_SMALL: usize = 64 << 10;
/// Longest answer that is taken: a page, and what is around its keys and values.
const ANSWER_BYTES_MAX: usize = RANGE_BYTES_MAX + (1 << 20);

/// What etcd answers to a chunk.
struct Chunk {
    kvs: Vec<KeyValue>,
    more: bool,
    /// Of the store, now.
    newest: Revision,
}

impl Etcd {
    pub(crate) async fn range_of(&self, range: KeyRange, limit: usize, at: Option<Revision>) -> Result<Page> {
        range.check()?;
        if limit == 0 {
            return Err(Error::invalid("a range of at most 0 keys"));
        }
        if at == Some(Revision::NONE) {
            // To etcd that is the newest.
            return Err(Error::new(ErrorKind::Compacted, "revision 0 is not kept"));
        }
        let limit = limit.min(RANGE_KEYS_MAX);
        let mut page = Page { kvs: Vec::new(), revision: at.unwrap_or(Revision::NONE), more: true };
        let (mut rest, mut at, mut keys, mut bytes) = (range, at, CHUNK_KEYS, 0);
        loop {
            let chunk = match self.chunk(&rest, keys.min(limit - page.kvs.len()), at).await {
                Ok(chunk) => chunk,
                Err(Fault::TooLong) if keys > 1 => {
                    keys /= 4;
                    continue;
                }
                // Writes overtook the reading; whoever asks for the rest is told.
                Err(Fault::Refused(error)) if error.kind == ErrorKind::Compacted && !page.kvs.is_empty() => {
                    return Ok(page);
                }
                Err(fault) => return Err(fault.into()),
            };
            page.revision = *at.get_or_insert(chunk.newest);
            let before = bytes;
            for kv in chunk.kvs {
                bytes += kv.key.as_bytes().len() + kv.value.len();
                if bytes > RANGE_BYTES_MAX && !page.kvs.is_empty() {
                    return Ok(page);
                }
                page.kvs.push(kv);
            }
            page.more = chunk.more;
            match page.kvs.last() {
                Some(last) if page.more && page.kvs.len() < limit => rest = rest.behind(&last.key),
                _ => return Ok(page),
            }
            if bytes - before <= CHUNK_BYTES_SMALL {
                keys = (4 * keys).min(CHUNK_KEYS_MAX);
            }
        }
    }

    async fn chunk(
        &self,
        range: &KeyRange,
        keys: usize,
        at: Option<Revision>,
    ) -> std::result::Result<Chunk, Fault> {
        // Even a range without keys is asked for: its answer has a revision, and `at` may be wrong.
        let Span { start, end } = self.names.span(range).unwrap_or_else(|| self.names.nowhere());
        let options = GetOptions::new()
            .with_range(end)
            .with_limit(signed(keys as u64))
            .with_revision(at.map_or(0, |at| signed(at.0)));
        let mut answer = self
            .members
            .ask("a read", Effect::None, |member, _| {
                let (start, options) = (start.clone(), options.clone());
                async move {
                    let kv = member.client().kv_client();
                    let mut kv = kv.max_decoding_message_size(ANSWER_BYTES_MAX);
                    Ok(kv.get(start, Some(options)).await?)
                }
            })
            .await?;
        let newest =
            revision(answer.header().map_or(-1, |header| header.revision())).map_err(Fault::Refused)?;
        self.seen(newest);
        let more = answer.more();
        let kvs = answer.take_kvs().into_iter().map(|kv| self.names.entry(kv)).collect::<Result<_>>();
        Ok(Chunk { kvs: kvs.map_err(Fault::Refused)?, more, newest })
    }
}
