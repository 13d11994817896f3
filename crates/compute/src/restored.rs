//! The first start behind a metadata store that was made anew: nobody has claimed the site, and yet its media were in use.
//!
//! Without the claim it is not known where the journal was last, and the list of media may be older than what became of
//! them. So all media must be there, which then tell both; the list is brought up to what they say.

use std::collections::BTreeSet;

use api::{Error, Result, code};
use cluster::CLAIM;
use data::Superblock;
use machine::{Entry, Manifest};
use meta::{Compare, Op, Revision, Store, Txn};
use proto::{Request, Response, Transport};
use units::{Epoch, MediumId};

use crate::home::{EXTENT, Nodes, NodesHome, Told};
use crate::records::{claim_key, media_key};

/// Most media that may be lost for good in a site whose metadata store is made anew.
pub const MISSING_MAX: usize = 2;

fn missing_key() -> Result<meta::Key> {
    Ok(CLAIM.key().number(1).end()?)
}

/// Lets the first start go on without so many media.
///
/// # Errors
/// `invalid_request` when they are too many; when the store does not answer.
pub async fn allow_missing(store: &dyn Store, missing: usize) -> Result<()> {
    if missing > MISSING_MAX {
        let reason = format!("no more than {MISSING_MAX} media may be missing, not {missing}");
        return Err(Error::new(code::INVALID_REQUEST, reason));
    }
    let put = Txn::new().then(Op::put(missing_key()?, missing.to_string().into_bytes()));
    store.txn(put).await.map_err(|error| cluster::store_error(&error))?;
    Ok(())
}

async fn may_miss(store: &dyn Store) -> Result<usize> {
    let got = store.get(&missing_key()?).await.map_err(|error| cluster::store_error(&error))?;
    let text = got.kv.and_then(|kv| String::from_utf8(kv.value.to_vec()).ok());
    Ok(text.and_then(|text| text.parse().ok()).map_or(0, |missing: usize| missing.min(MISSING_MAX)))
}

/// Whether an incarnation has ever used a medium.
pub(crate) async fn was_used(nodes: &Nodes, told: &Told) -> Result<bool> {
    let Some(superblock) = &told.superblock else { return Ok(false) };
    nodes.remote.place(superblock.medium, told.node);
    match nodes.remote.call(superblock.medium, Request::Info { extent: EXTENT }).await {
        Ok(Response::Info(info)) => Ok(info.sealed > Epoch(0)),
        answer => {
            let reason = format!("{}: {answer:?}", nodes.place(told).display());
            Err(Error::new(code::MEDIUM_ERROR, reason))
        }
    }
}

/// Brings the list of media up to what they say, when nobody has claimed the site and it is not new.
///
/// # Errors
/// `media_missing`; when the store or a data node does not answer.
pub(crate) async fn check(
    nodes: &Nodes,
    store: &dyn Store,
    (manifest, at): (Manifest, Revision),
) -> Result<(Manifest, Revision)> {
    let claim = store.get(&claim_key()?).await.map_err(|error| cluster::store_error(&error))?;
    if claim.kv.is_some() {
        return Ok((manifest, at));
    }
    let (all, silent) = nodes.list_all().await;
    let of_site: Vec<Told> = all
        .into_iter()
        .filter(|told| told.superblock.as_ref().is_some_and(|superblock| superblock.site == manifest.site()))
        .collect();
    let mut used = false;
    for told in of_site.iter().filter(|told| told.medium.trouble.is_none()) {
        used = used || was_used(nodes, told).await?;
    }
    if !used {
        return Ok((manifest, at));
    }
    tracing::warn!("the metadata store was made anew: the site's media tell what it does not know");
    let next = brought_up(&manifest, &of_site, may_miss(store).await?).map_err(|mut error| {
        silent.iter().for_each(|(_, why)| error.reason = format!("{}; {why}", error.reason));
        error
    })?;
    if next == manifest {
        return Ok((manifest, at));
    }
    let key = media_key()?;
    let put = Txn::new().when(Compare::unchanged(key.clone(), at)).then(Op::put(key, next.encode()?));
    // Whatever becomes of it: what stands there counts, and is looked at again at the next attempt.
    store.txn(put).await.map_err(|error| cluster::store_error(&error))?;
    let loaded = NodesHome::load(store).await?.filter(|(stored, _)| *stored == next);
    loaded.ok_or_else(|| Error::new(code::CLOSING, "another compute node looks at the same media"))
}

/// The list as the media have it.
fn brought_up(manifest: &Manifest, of_site: &[Told], missing: usize) -> Result<Manifest> {
    let superblock = |told: &Told| -> Option<Superblock> { told.superblock.clone() };
    let blocks: Vec<(Superblock, &Told)> =
        of_site.iter().filter_map(|told| Some((superblock(told)?, told))).collect();
    let released: BTreeSet<MediumId> =
        blocks.iter().filter(|(block, _)| block.released).map(|(block, _)| block.medium).collect();
    let there: Vec<&(Superblock, &Told)> =
        blocks.iter().filter(|(block, told)| !block.released && told.medium.trouble.is_none()).collect();
    let mut next = manifest.clone();
    next.media.retain(|entry| !released.contains(&entry.id()));
    for (block, told) in &there {
        if !next.ids().contains(&block.medium) {
            let entry = Entry::new(block.medium, told.medium.name.as_ref(), told.medium.bytes, false);
            next.media.push(entry.on_node(Some(told.node)));
        }
    }
    let is_there = |id: &MediumId| there.iter().any(|(block, _)| block.medium == *id);
    let absent = next.ids().into_iter().filter(|id| !is_there(id)).count();
    let total = blocks.iter().max_by_key(|(block, _)| block.generation).map_or(0, |(block, _)| block.media);
    let unknown = usize::from(total).saturating_sub(next.media.len());
    if absent + unknown > missing {
        let reason = format!(
            "the first start behind a restored metadata store needs all {} media, and {} are there",
            usize::from(total).max(next.media.len()),
            there.len()
        );
        return Err(Error::new(code::MEDIA_MISSING, reason)
            .hint("bring them back; when they are lost for good: `site restore --missing`"));
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use data::Params;
    use proto::NodeMedium;
    use seal::{EpochKeys, Kek, KeyRing, RecoveryKey, WrappedKeys};
    use units::{NodeId, SiteId};

    use super::*;

    const SITE: SiteId = SiteId([1; 16]);

    fn told(number: u8, generation: u64, media: u16, released: bool) -> Told {
        let keys = WrappedKeys::by_key_file(
            &KeyRing::from_master([1; 32]),
            &Kek::from_bytes([2; 32]),
            &RecoveryKey::from_bytes([3; 32]),
            &[4; 40],
        );
        let superblock = Superblock {
            generation,
            site: SITE,
            medium: MediumId([number; 16]),
            medium_bytes: 1 << 30,
            params: Params::for_medium(1 << 30),
            media,
            released,
            keys,
            epochs: EpochKeys::default(),
            recovered_ms: 0,
        };
        let medium = NodeMedium {
            medium: superblock.medium,
            bytes: 1 << 30,
            name: format!("/dev/sd{number}"),
            superblock: None,
            trouble: None,
        };
        Told { node: NodeId([number; 16]), medium, superblock: Some(superblock) }
    }

    fn listed(numbers: &[u8]) -> Manifest {
        let entry = |number: &u8| Entry::new(MediumId([*number; 16]), "x".as_ref(), 1 << 30, false);
        Manifest::new(SITE, numbers.iter().map(entry).collect())
    }

    fn ids(manifest: &Manifest) -> Vec<u8> {
        manifest.ids().into_iter().map(|id| id.0[0]).collect()
    }

    #[test]
    fn a_list_is_brought_up_to_what_the_media_say() {
        let plain = [told(1, 7, 3, false), told(2, 7, 3, false), told(3, 7, 3, false)];
        assert_eq!(ids(&brought_up(&listed(&[1, 2, 3]), &plain, 0).unwrap()), [1, 2, 3]);
        // One joined since, and one left.
        let moved = [told(1, 9, 3, false), told(2, 8, 3, true), told(3, 9, 3, false), told(4, 9, 3, false)];
        assert_eq!(ids(&brought_up(&listed(&[1, 2, 3]), &moved, 0).unwrap()), [1, 3, 4]);
        // One that is listed is not there, or one that nobody lists, or one is in trouble.
        let absent = brought_up(&listed(&[1, 2, 3]), &plain[..2], 0).unwrap_err();
        assert_eq!(absent.code, "media_missing");
        assert_eq!(brought_up(&listed(&[1, 2]), &plain[..2], 0).unwrap_err().code, "media_missing");
        let mut ill = plain.clone();
        ill[2].medium.trouble = Some("it does not answer".to_owned());
        assert_eq!(brought_up(&listed(&[1, 2, 3]), &ill, 0).unwrap_err().code, "media_missing");
        // An administrator knows better.
        assert_eq!(ids(&brought_up(&listed(&[1, 2, 3]), &plain[..2], 1).unwrap()), [1, 2, 3]);
        assert_eq!(brought_up(&listed(&[1, 2, 3]), &plain[..1], 1).unwrap_err().code, "media_missing");
    }
}
