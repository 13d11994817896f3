//! Reading the allocation table of a medium that is being opened.

use container::FragmentHeader;
use media::{MediaError, MediaErrorKind, Medium};
use units::{MediumId, PAGE, PageBuf};

use crate::layout::Layout;
use crate::node::Log;
use crate::table::{Change, Extent, Table, TablePlace, decode_log, seconds_of};

/// Bytes read at a time when a whole region is read.
const READ_BYTES: usize = 1 << 20;

pub(crate) struct Loaded {
    pub(crate) table: Table,
    pub(crate) log: Log,
    /// The stored tables that are to be written anew.
    pub(crate) damaged: Vec<usize>,
    /// The highest time in the log, seconds since the epoch.
    pub(crate) seconds: u32,
}

pub(crate) struct Loader<'a> {
    pub(crate) medium: &'a dyn Medium,
    pub(crate) id: MediumId,
    pub(crate) layout: Layout,
}

impl Loader<'_> {
    pub(crate) async fn load(&self) -> Result<Loaded, MediaError> {
        let stored = [self.table(0).await?, self.table(1).await?];
        let damaged = (0..2).filter(|which| stored[*which].is_none()).collect();
        let numbers = stored.each_ref().map(|stored| stored.as_ref().map(|(number, _)| *number));
        let newest = stored.into_iter().flatten().max_by_key(|(number, _)| *number);
        let (from, mut table) = match newest {
            Some(newest) => newest,
            // The whole log runs over what the headers say: it knows what was freed lately.
            None => (0, self.rebuild().await?),
        };
        let (pages, seconds) = self.log_pages().await?;
        let last = pages.last().map_or(from, |(number, _)| from.max(*number));
        let newer = pages.into_iter().filter(|(number, _)| *number > from);
        newer.flat_map(|(_, changes)| changes).for_each(|change| table.apply(change));
        // A damaged one is written anew, as of the last page, before anything else.
        let tables = numbers.map(|number| number.unwrap_or(last));
        Ok(Loaded { table, log: Log { next: last + 1, tables }, damaged, seconds })
    }

    fn empty(&self) -> Table {
        Table::new(self.layout.data, self.layout.end, self.layout.params.fragments_max)
    }

    async fn table(&self, which: usize) -> Result<Option<(u64, Table)>, MediaError> {
        let start = self.layout.tables[which];
        let Some(first) = readable(self.medium.read(start, PAGE).await)? else { return Ok(None) };
        let Some(place) = TablePlace::peek(first.as_ref(), self.layout.params.fragments_max) else {
            return Ok(None);
        };
        let Some(bytes) = readable(self.medium.read(start, place.bytes()).await)? else { return Ok(None) };
        let mut table = self.empty();
        Ok(table.load(bytes.as_ref(), place).map(|()| (place.number, table)))
    }

    /// The pages of `length` bytes at `offset` that can be read: one bad place must not take the others with it.
    async fn pages(&self, offset: u64, length: usize) -> Result<Vec<(u64, Vec<u8>)>, MediaError> {
        let places = (offset..).step_by(PAGE).take(length / PAGE);
        if let Some(bytes) = readable(self.medium.read(offset, length).await)? {
            return Ok(places.zip(bytes.as_ref().chunks(PAGE).map(<[u8]>::to_vec)).collect());
        }
        let mut pages = Vec::new();
        for place in places {
            if let Some(page) = readable(self.medium.read(place, PAGE).await)? {
                pages.push((place, page.as_ref().to_vec()));
            }
        }
        Ok(pages)
    }

    /// All sound pages of the table log, by number, and the highest time in them.
    async fn log_pages(&self) -> Result<(Vec<(u64, Vec<Change>)>, u32), MediaError> {
        let total = self.layout.params.log_pages as usize * PAGE;
        let (mut found, mut seconds) = (Vec::new(), 0);
        for offset in (0..total).step_by(READ_BYTES) {
            let length = READ_BYTES.min(total - offset);
            let pages = self.pages(self.layout.log + offset as u64, length).await?;
            for (_, page) in &pages {
                if let Some(decoded) = decode_log(page) {
                    seconds = seconds.max(seconds_of(page));
                    found.push(decoded);
                }
            }
        }
        found.sort_by_key(|(number, _)| *number);
        Ok((found, seconds))
    }

    /// The table from the fragment headers: the last resort when both stored tables are damaged.
    async fn rebuild(&self) -> Result<Table, MediaError> {
        tracing::warn!(
            medium = self.medium.name(),
            "both allocation tables are damaged: reading all fragment headers"
        );
        let mut table = self.empty();
        let mut window = self.layout.data;
        while window < self.layout.end {
            let length = (self.layout.end - window).min(READ_BYTES as u64) as usize;
            for (offset, page) in self.pages(window, length).await? {
                let Some(header_bytes) = FragmentHeader::peek(&page) else { continue };
                if offset + header_bytes as u64 > self.layout.end {
                    continue;
                }
                let Some(whole) = readable(self.medium.read(offset, header_bytes).await)? else { continue };
                let Ok(header) = FragmentHeader::decode(whole.as_ref()) else { continue };
                // What was here before the medium was last formatted was another medium's.
                if header.members.get(usize::from(header.index)) != Some(&self.id) {
                    continue;
                }
                let payload = header.payload_bytes() as u32;
                let extent = Extent { offset, payload, allocation: header.allocation };
                let key = (header.container, header.index);
                table.apply(Change::Add(key, extent));
                table.apply(Change::Lock(key, extent, header.locked_until));
            }
            window += length as u64;
        }
        Ok(table)
    }
}

/// A place that cannot be read is damage there; a medium that is gone is not damage at all.
fn readable(read: Result<PageBuf, MediaError>) -> Result<Option<PageBuf>, MediaError> {
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind == MediaErrorKind::Io => {
            tracing::warn!(%error, "a part of a medium's metadata cannot be read");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
