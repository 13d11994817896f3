//! The hand-shake: greeting, options, and at its end an opened device.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::SessionError;
use crate::device::{Context, Device, Exports, OpenError, OpenErrorKind};
use crate::link::Link;
use crate::proto::{
    self, ALLOCATION_CONTEXT, BASE_ALLOCATION, BASE_NAMESPACE, CLIENT_FIXED_NEWSTYLE, CLIENT_NO_ZEROES,
    FIRST_CONTEXT, InfoRequest, MAX_NAME, MetaQuery, OptionHeader, info, opt, rep,
};
use crate::request::{Contexts, Facts, Terms};
use crate::seats::Refusal;
use crate::source::Source;

/// The longest payload of an option that is read: many times what any known client sends.
const MAX_PAYLOAD: u32 = 64 << 10;
/// The longest payload that is thrown away; a longer one closes the connection.
const MAX_DISCARD: u32 = 1 << 20;
/// Options in one hand-shake. Tools that list exports send a few for each export.
const MAX_OPTIONS: usize = 4096;
/// Metadata contexts that a client selects or asks for by name.
const MAX_CONTEXTS: usize = 16;
/// Metadata contexts of one namespace that are listed, some 6 MB; of more none is, so that nobody takes a part for all.
const MAX_LISTED: usize = 1 << 16;
/// A list of exports is sent in parts of about this many bytes.
const LIST_PART: usize = 64 << 10;

/// What the hand-shake ends with: a device to serve, or nothing when the client only had questions.
type Outcome = Option<(Arc<dyn Device>, Terms, Contexts)>;

/// What follows an option.
enum Step {
    Next,
    Serve(Arc<dyn Device>, Terms, Contexts),
    End,
}

/// Haggles until an export is opened or the client leaves.
pub(crate) async fn negotiate<R, W>(
    source: &mut Source<R>,
    writer: &mut W,
    exports: &dyn Exports,
    link: &Link,
) -> Result<Outcome, SessionError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut out = Vec::new();
    proto::encode_greeting(&mut out);
    writer.write_all(&out).await?;
    out.clear();
    let Some(flags) = source.message(4).await? else { return Ok(None) };
    let flags =
        proto::decode_client_flags(flags).ok_or(SessionError::Protocol("client flags that do not exist"))?;
    let mut haggling = Haggling {
        source,
        writer,
        exports,
        link,
        out,
        refused: false,
        fixed: flags & CLIENT_FIXED_NEWSTYLE != 0,
        zeroes: flags & CLIENT_NO_ZEROES == 0,
        structured: false,
        selected: None,
        opened: None,
    };
    for _ in 0..MAX_OPTIONS {
        let step = haggling.option().await?;
        let out = std::mem::take(&mut haggling.out);
        haggling.writer.write_all(&out).await?;
        match step {
            Step::Next => {}
            Step::End => return Ok(None),
            Step::Serve(device, terms, contexts) => return Ok(Some((device, terms, contexts))),
        }
    }
    Err(SessionError::Protocol("options without end"))
}

/// Selected metadata contexts.
struct Selected {
    export: String,
    allocation: bool,
    others: Vec<Arc<dyn Context>>,
}

/// The state of a hand-shake.
struct Haggling<'a, R, W> {
    source: &'a mut Source<R>,
    writer: &'a mut W,
    exports: &'a dyn Exports,
    link: &'a Link,
    /// Replies not yet sent.
    out: Vec<u8>,
    /// The client was told that there is no seat for it.
    refused: bool,
    /// The client understands replies to options.
    fixed: bool,
    /// The client expects 124 zeros after EXPORT_NAME.
    zeroes: bool,
    structured: bool,
    /// The metadata contexts that were selected, and for which export.
    selected: Option<Selected>,
    /// The export opened last, so that questions about it and GO open it once.
    opened: Option<(String, Arc<dyn Device>)>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Haggling<'_, R, W> {
    /// Handles one option; its replies are left in `out`.
    async fn option(&mut self) -> Result<Step, SessionError> {
        let Some(head) = self.source.message(OptionHeader::BYTES).await? else { return Ok(Step::End) };
        let OptionHeader { option, length } =
            proto::decode_option_header(head).ok_or(SessionError::Protocol("not an option"))?;
        if !self.fixed && option != opt::EXPORT_NAME {
            return Err(SessionError::Protocol("an option without fixed newstyle"));
        }
        if length > MAX_PAYLOAD {
            if option == opt::EXPORT_NAME || length > MAX_DISCARD {
                return Err(SessionError::Protocol("an option far too long"));
            }
            self.source.discard(length as usize).await?;
            self.reply(option, rep::ERR_TOO_BIG, "the option is longer than 64 KiB");
            return Ok(Step::Next);
        }
        // Counted until the option is answered.
        let link = self.link;
        let _admitted = link.admit(length as usize).await;
        let payload = self.source.payload(length as usize).await?;
        match option {
            opt::EXPORT_NAME => return self.export_name(&payload).await,
            opt::ABORT => {
                self.reply(option, rep::ACK, "");
                return Ok(Step::End);
            }
            opt::INFO | opt::GO => {
                let step = self.info(option, &payload).await;
                // What else it asks before it is told the same: clients show what they are told last.
                return Ok(if self.refused && option == opt::GO { Step::End } else { step });
            }
            opt::LIST if payload.is_empty() && self.link.refusal().is_some() => {
                let error = self.no_seat();
                self.reply(option, refusal(error.kind), &error.reason);
            }
            opt::LIST if payload.is_empty() => self.list().await?,
            opt::STRUCTURED_REPLY if payload.is_empty() => {
                self.structured = true;
                self.reply(option, rep::ACK, "");
            }
            opt::LIST | opt::STRUCTURED_REPLY => {
                self.reply(option, rep::ERR_INVALID, "the option has no payload");
            }
            opt::LIST_META_CONTEXT | opt::SET_META_CONTEXT => self.meta_context(option, &payload).await,
            _ => self.reply(option, rep::ERR_UNSUP, "not supported"),
        }
        Ok(Step::Next)
    }

    fn reply(&mut self, option: u32, kind: u32, text: &str) {
        proto::encode_option_reply(&mut self.out, option, kind, text);
    }

    /// The device behind a name, opened or already open.
    async fn open(&mut self, name: &str) -> Result<Arc<dyn Device>, OpenError> {
        if let Some((known, device)) = &self.opened
            && known == name
        {
            return Ok(device.clone());
        }
        // The one before closes first: nobody asks about two exports at a time.
        self.opened = None;
        let refused = self.link.refusal().is_some();
        if refused && !self.link.keeps_task_seats() {
            return Err(self.no_seat());
        }
        let device = self.exports.open(name).await?;
        if refused && !(device.of_task() && self.link.take_task_seat()) {
            return Err(self.no_seat());
        }
        self.opened = Some((name.to_owned(), device.clone()));
        Ok(device)
    }

    /// Why the client is told to go.
    fn no_seat(&mut self) -> OpenError {
        let why = self.link.refusal().unwrap_or(Refusal::Full);
        if !std::mem::replace(&mut self.refused, true) {
            self.link.refused(why);
        }
        OpenError { kind: OpenErrorKind::Refused, reason: format!("{why}; `holdfast status` says more") }
    }

    /// The end of the hand-shake: this device is served.
    fn serve(&mut self, name: &str, device: Arc<dyn Device>) -> Step {
        let selected = self.selected.take().filter(|selected| selected.export == name);
        let (allocation, others) =
            selected.map_or((false, Vec::new()), |selected| (selected.allocation, selected.others));
        let terms = Terms { structured: self.structured, allocation, contexts: !others.is_empty() };
        let contexts: Contexts = (!others.is_empty()).then(|| others.into());
        Step::Serve(device, terms, contexts)
    }

    async fn export_name(&mut self, payload: &[u8]) -> Result<Step, SessionError> {
        // This option has no error reply: all that is left is to hang up.
        let name = std::str::from_utf8(payload).ok().filter(|name| name.len() <= MAX_NAME);
        let name = name.ok_or(SessionError::Protocol("no export name"))?;
        let Ok(device) = self.open(name).await else { return Ok(Step::End) };
        let facts = Facts::of(&*device);
        proto::encode_export_name_reply(&mut self.out, facts.size, facts.export_flags(), self.zeroes);
        Ok(self.serve(name, device))
    }

    async fn info(&mut self, option: u32, payload: &[u8]) -> Step {
        let request = match InfoRequest::decode(payload) {
            Ok(request) => request,
            Err(bad) => {
                let (kind, text) = bad.reply();
                self.reply(option, kind, text);
                return Step::Next;
            }
        };
        let device = match self.open(request.name).await {
            Ok(device) => device,
            Err(error) => {
                self.reply(option, refusal(error.kind), &error.reason);
                return Step::Next;
            }
        };
        let facts = Facts::of(&*device);
        proto::encode_info_export(&mut self.out, option, facts.size, facts.export_flags());
        if request.wants(info::NAME) {
            proto::encode_info_text(&mut self.out, option, info::NAME, request.name);
        }
        if request.wants(info::DESCRIPTION) {
            proto::encode_description(&mut self.out, option, &device.description());
        }
        if request.wants(info::BLOCK_SIZE) {
            proto::encode_info_block_size(&mut self.out, option);
        }
        self.reply(option, rep::ACK, "");
        if option == opt::GO { self.serve(request.name, device) } else { Step::Next }
    }

    async fn list(&mut self) -> Result<(), SessionError> {
        for export in self.exports.list().await {
            if export.name.len() > MAX_NAME {
                tracing::warn!(name = export.name, "export not listed: its name is longer than 255 bytes");
                continue;
            }
            proto::encode_option_server(&mut self.out, opt::LIST, &export.name, &export.description);
            if self.out.len() >= LIST_PART {
                self.writer.write_all(&self.out).await?;
                self.out.clear();
            }
        }
        self.reply(opt::LIST, rep::ACK, "");
        Ok(())
    }

    async fn meta_context(&mut self, option: u32, payload: &[u8]) {
        let select = option == opt::SET_META_CONTEXT;
        if select {
            // Whatever becomes of this one, it replaces the selection before.
            self.selected = None;
        }
        let query = match MetaQuery::decode(payload) {
            Ok(query) if self.structured => query,
            Ok(_) => {
                return self.reply(option, rep::ERR_INVALID, "structured replies were not negotiated");
            }
            Err(bad) => {
                let (kind, text) = bad.reply();
                return self.reply(option, kind, text);
            }
        };
        if let Err(error) = self.open(query.name).await {
            return self.reply(option, refusal(error.kind), &error.reason);
        }
        let told = if select { self.select(&query).await } else { list_contexts(self.exports, &query).await };
        match told {
            Ok(contexts) => {
                for (id, name) in contexts {
                    proto::encode_meta_context(&mut self.out, option, id, &name);
                }
                self.reply(option, rep::ACK, "");
            }
            Err((kind, text)) => self.reply(option, kind, &text),
        }
    }

    /// Selects the contexts that are named.
    async fn select(&mut self, query: &MetaQuery<'_>) -> Result<Vec<(u32, String)>, (u32, String)> {
        let mut selected = Selected { export: query.name.to_owned(), allocation: false, others: Vec::new() };
        let mut found: Vec<(u32, String)> = Vec::new();
        for asked in query.queries() {
            if found.iter().any(|(_, name)| name == asked) {
                continue;
            }
            if found.len() == MAX_CONTEXTS {
                return Err((rep::ERR_TOO_BIG, format!("more than {MAX_CONTEXTS} metadata contexts")));
            }
            if asked == BASE_ALLOCATION {
                selected.allocation = true;
                found.push((ALLOCATION_CONTEXT, asked.to_owned()));
                continue;
            }
            let opened = self.exports.open_context(query.name, asked).await;
            let opened = opened.map_err(|error| (refusal(error.kind), error.reason))?;
            if let Some(context) = opened {
                found.push((FIRST_CONTEXT + selected.others.len() as u32, asked.to_owned()));
                selected.others.push(context);
            }
        }
        self.selected = Some(selected);
        Ok(found)
    }
}

/// The contexts that a list shows: all, those of a namespace, and those that are named.
async fn list_contexts(
    exports: &dyn Exports,
    query: &MetaQuery<'_>,
) -> Result<Vec<(u32, String)>, (u32, String)> {
    let mut found = Vec::new();
    if query.empty || query.asks(BASE_NAMESPACE) || query.asks(BASE_ALLOCATION) {
        found.push((0, BASE_ALLOCATION.to_owned()));
    }
    let all = query.empty.then_some("");
    for asked in all.into_iter().chain(query.queries()).take(MAX_CONTEXTS) {
        let named = if asked.ends_with(':') || asked.is_empty() {
            exports.contexts(query.name, asked, MAX_LISTED + 1).await
        } else {
            match exports.open_context(query.name, asked).await {
                Ok(Some(_)) => vec![asked.to_owned()],
                _ => Vec::new(),
            }
        };
        if named.len() > MAX_LISTED {
            let told = format!("more than {MAX_LISTED} metadata contexts: name the one that is wanted");
            return Err((rep::ERR_TOO_BIG, told));
        }
        found.extend(named.into_iter().filter(|name| name.len() <= MAX_NAME).map(|name| (0, name)));
    }
    Ok(found)
}

/// What a client is told when an export is not opened.
fn refusal(kind: OpenErrorKind) -> u32 {
    match kind {
        OpenErrorKind::Unknown => rep::ERR_UNKNOWN,
        OpenErrorKind::Refused => rep::ERR_POLICY,
        OpenErrorKind::ShuttingDown => rep::ERR_SHUTDOWN,
        OpenErrorKind::Failed => rep::ERR_PLATFORM,
    }
}
