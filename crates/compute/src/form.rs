//! The first start of a site of many nodes: its media are formatted, and listed.
//!
//! Order: all blank media of the data nodes are formatted one after another; then the list is written, if nobody wrote one.
//! An attempt that was cut off leaves media that carry the site's superblock and are in no list: the next one takes them as
//! they are.

use api::{Error, Result, code};
use cluster::Birth;
use data::{Layout, Params, Superblock};
use machine::{Entry, Manifest};
use meta::{Compare, Op, Revision, Store, Txn};
use seal::EpochKeys;
use units::{Epoch, Map, NodeId, SiteId};

use crate::home::{Nodes, NodesHome, Told};
use crate::records::media_key;
use crate::restored::was_used;

/// Lists the media of a site that has none listed yet, once enough data nodes have some.
///
/// # Errors
/// `too_few_media` until then; `metadata_lost` when the media are those of a site that was in use; what formatting media can meet.
pub(crate) async fn form(nodes: &Nodes, store: &dyn Store, site: SiteId) -> Result<(Manifest, Revision)> {
    let waiting = |reason: String| Error::new(code::TOO_FEW_MEDIA, reason);
    let birth = Birth::find(store).await?;
    let birth = birth.ok_or_else(|| waiting("the founding manager has not started yet".to_owned()))?;
    let (all, silent) = nodes.list_all().await;
    let is_ours = |superblock: &Superblock| superblock.site == site && !superblock.released;
    let usable = |told: &Told| match &told.superblock {
        Some(superblock) => is_ours(superblock) && told.medium.trouble.is_none(),
        None => told.medium.trouble.is_none() && is_large_enough(told.medium.bytes),
    };
    for told in all.iter().filter(|told| !usable(told)) {
        let reason = told.medium.trouble.as_deref().unwrap_or("it is smaller than 1 GiB, or of another site");
        tracing::warn!(medium = %nodes.place(told).display(), reason, "a medium is left out");
    }
    let media: Vec<Told> = all.into_iter().filter(usable).collect();
    for told in &media {
        if was_used(nodes, told).await? {
            let reason = format!(
                "{} holds data of this site, which its metadata store does not know",
                nodes.place(told).display()
            );
            return Err(Error::new(code::METADATA_LOST, reason));
        }
    }
    let mut by_node: Map<NodeId, usize> = Map::default();
    media.iter().for_each(|told| *by_node.entry(told.node).or_default() += 1);
    if by_node.len() < birth.data_nodes {
        let silent: Vec<String> = silent.into_iter().map(|(_, why)| why).collect();
        let reason = format!(
            "{} of the {} data nodes that the site begins with have media; {}",
            by_node.len(),
            birth.data_nodes,
            if silent.is_empty() { "the others have none yet".to_owned() } else { silent.join("; ") }
        );
        return Err(waiting(reason));
    }
    let mut entries = Vec::new();
    for told in &media {
        if told.superblock.is_none() {
            let superblock = superblock(site, told, media.len() as u16, &birth);
            nodes.format(Epoch(0), told.node, &superblock).await.map_err(|error| {
                let reason = format!("{}: {}", nodes.place(told).display(), error.reason);
                Error::new(code::MEDIUM_ERROR, reason)
            })?;
            tracing::info!(medium = %nodes.place(told).display(), "formatted");
        }
        let id = told.superblock.as_ref().map_or(told.medium.medium, |superblock| superblock.medium);
        let entry = Entry::new(id, told.medium.name.as_ref(), told.medium.bytes, false);
        entries.push(entry.on_node(Some(told.node)));
    }
    let manifest = Manifest::new(site, entries);
    let key = media_key()?;
    let txn = Txn::new().when(Compare::absent(key.clone())).then(Op::put(key, manifest.encode()?));
    // Whoever wrote it, and whatever became of this attempt: what stands there counts.
    let written = store.txn(txn).await;
    match NodesHome::load(store).await? {
        Some(loaded) => {
            tracing::info!(media = media.len(), "site made");
            Ok(loaded)
        }
        None => Err(waiting(format!("the list of media was not written: {written:?}"))),
    }
}

fn is_large_enough(bytes: u64) -> bool {
    let params = Params::for_medium(bytes);
    bytes >= params.least_medium_bytes() && Layout::new(params, bytes).is_some()
}

fn superblock(site: SiteId, told: &Told, media: u16, birth: &Birth) -> Superblock {
    Superblock {
        generation: 1,
        site,
        medium: told.medium.medium,
        medium_bytes: told.medium.bytes,
        params: Params::for_medium(told.medium.bytes),
        media,
        released: false,
        keys: birth.keys.clone(),
        epochs: EpochKeys::default(),
        recovered_ms: 0,
    }
}
