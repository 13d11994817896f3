//! A small site: one or more media with little room, so that logs wrap and extents run out.

use std::sync::Arc;

use container::{FragmentHeader, fragment_bytes};
use proto::{CallErrorKind, Request, Response, SegmentId};
use seal::{Kek, KeyRing, RecoveryKey, WrappedKeys};
use units::{ContainerId, Epoch, Incarnation, MediumId, PAGE, PageBuf, PageSlice, SiteId};

use super::medium::{Image, Log, TestMedium};
use crate::{MediumNode, Params, Superblock, format, open};
pub(super) use seam::testing::run;

pub(super) const SEGMENT: u32 = 64 * 1024;
pub(super) const PARAMS: Params = Params {
    container_bytes: 64 * 1024,
    segment_bytes: SEGMENT,
    segments_max: 4,
    log_pages: 16,
    fragments_max: 40,
};
pub(super) const SITE: SiteId = SiteId([0x51; 16]);
/// Room for about a dozen fragments.
pub(super) const MEDIUM_BYTES: u64 = 1400 * 1024;

pub(super) fn medium_id(n: usize) -> MediumId {
    MediumId([n as u8 + 1; 16])
}

pub(super) fn superblock(n: usize) -> Superblock {
    let keys = WrappedKeys::by_key_file(
        &KeyRing::for_tests(1),
        &Kek::from_bytes([1; 32]),
        &RecoveryKey::from_bytes([2; 32]),
        &[3; 40],
    );
    Superblock {
        generation: 1,
        site: SITE,
        medium: medium_id(n),
        medium_bytes: MEDIUM_BYTES,
        params: PARAMS,
        media: 3,
        released: false,
        keys,
        epochs: seal::EpochKeys::default(),
        recovered_ms: 0,
    }
}

/// A medium just formatted.
pub(super) async fn fresh(n: usize, log: &Log) -> Arc<TestMedium> {
    let medium = TestMedium::new(n, MEDIUM_BYTES, Image::new(), log);
    format(&*medium, &superblock(n)).await.unwrap();
    medium
}

/// A medium just formatted, opened.
pub(super) async fn node(log: &Log) -> (Arc<TestMedium>, Arc<MediumNode>) {
    let medium = fresh(0, log).await;
    let node = reopen(&medium).await;
    (medium, node)
}

/// Opens what `medium` holds as another would after a restart.
pub(super) async fn reopen(medium: &Arc<TestMedium>) -> Arc<MediumNode> {
    Arc::new(open(medium.clone(), SITE).await.unwrap())
}

/// What an image holds, opened.
pub(super) async fn open_image(image: Image) -> (Arc<TestMedium>, Arc<MediumNode>) {
    let medium = TestMedium::new(0, MEDIUM_BYTES, image, &Log::default());
    let node = reopen(&medium).await;
    (medium, node)
}

pub(super) fn container(number: u32) -> ContainerId {
    ContainerId { incarnation: Incarnation(9), number, row: 0, class: 1 }
}

/// The payload of a fragment: nothing else is like it.
pub(super) fn payload(number: u32) -> PageSlice {
    let bytes = fragment_bytes(total(number), 1);
    let mut buf = PageBuf::zeroed(bytes);
    for (i, byte) in buf.as_mut().iter_mut().enumerate() {
        *byte = (number as usize * 89 + i / 7 + i / PAGE * 13) as u8;
    }
    buf.share()
}

fn total(number: u32) -> usize {
    (1 + number as usize * 7 % 16) * PAGE
}

pub(super) fn write_request(medium: usize, number: u32, replace: bool) -> Request {
    let payload = payload(number);
    let header = FragmentHeader {
        container: container(number),
        index: 0,
        k: 1,
        m: 1,
        container_bytes: total(number) as u32,
        allocation: 0,
        locked_until: 0,
        members: vec![medium_id(medium), medium_id(medium + 100)],
        page_crcs: FragmentHeader::crcs_of(&payload),
    };
    Request::FragmentWrite { header: Box::new(header), payload, replace }
}

pub(super) async fn put(node: &MediumNode, number: u32) -> Result<(), CallErrorKind> {
    node.handle(write_request(0, number, false)).await.map(|_| ()).map_err(|error| error.kind)
}

pub(super) async fn replace(node: &MediumNode, number: u32) -> Result<(), CallErrorKind> {
    node.handle(write_request(0, number, true)).await.map(|_| ()).map_err(|error| error.kind)
}

pub(super) async fn free(node: &MediumNode, number: u32) -> Result<(), CallErrorKind> {
    let free = Request::FragmentFree(vec![container(number)]);
    node.handle(free).await.map(|_| ()).map_err(|error| error.kind)
}

/// Reads the whole fragment, checked by the data node; what it gives must be what was written.
pub(super) async fn get(node: &MediumNode, number: u32) -> Result<(), CallErrorKind> {
    let expected = payload(number);
    let length = expected.len() as u32;
    let read =
        Request::FragmentRead { container: container(number), index: 0, offset: 0, length, verify: true };
    match node.handle(read).await {
        Ok(Response::Bytes(bytes)) => {
            assert!(bytes.as_ref() == expected.as_ref(), "fragment {number} reads as something else");
            Ok(())
        }
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.kind),
    }
}

/// The numbers of all fragments in the table.
pub(super) async fn list(node: &MediumNode) -> Vec<u32> {
    match node.handle(Request::FragmentList { after: None, limit: 1000 }).await.unwrap() {
        Response::Fragments(keys) => keys.into_iter().map(|(container, _)| container.number).collect(),
        other => panic!("{other:?}"),
    }
}

pub(super) fn segment(number: u32) -> SegmentId {
    SegmentId { epoch: Epoch(1), stream: Incarnation(4), number }
}

pub(super) fn segment_header(id: SegmentId) -> PageSlice {
    let header = journal::SegmentHeader { id, slot_bytes: SEGMENT, members: vec![medium_id(0)] };
    PageBuf::copy_of(&header.encode(&[7; 32])).share()
}

pub(super) async fn open_segment(node: &MediumNode, number: u32) -> Result<(), CallErrorKind> {
    let open = Request::SegmentOpen { id: segment(number), header: segment_header(segment(number)) };
    node.handle(open).await.map(|_| ()).map_err(|error| error.kind)
}

/// The batch that goes to `offset` of segment `number`: one page.
pub(super) fn batch(number: u32, offset: u32) -> PageSlice {
    PageBuf::copy_of(&vec![(number * 16 + offset / PAGE as u32) as u8 | 1; PAGE]).share()
}

pub(super) async fn append(node: &MediumNode, number: u32, offset: u32) -> Result<(), CallErrorKind> {
    let append = Request::SegmentAppend { id: segment(number), offset, bytes: batch(number, offset) };
    node.handle(append).await.map(|_| ()).map_err(|error| error.kind)
}

/// Whether segment `number` holds its batch at `offset`.
pub(super) async fn holds(node: &MediumNode, number: u32, offset: u32) -> bool {
    let read = Request::SegmentRead { id: segment(number), offset, length: PAGE as u32 };
    match node.handle(read).await {
        Ok(Response::Bytes(bytes)) => bytes.as_ref() == batch(number, offset).as_ref(),
        _ => false,
    }
}

pub(super) async fn free_segments(node: &MediumNode, numbers: &[u32]) -> Result<(), CallErrorKind> {
    let free = Request::SegmentFree(numbers.iter().map(|n| segment(*n)).collect());
    node.handle(free).await.map(|_| ()).map_err(|error| error.kind)
}

pub(super) async fn segments(node: &MediumNode) -> Vec<u32> {
    match node.handle(Request::SegmentList).await.unwrap() {
        Response::Segments(pages) => {
            let place = |page: &PageSlice| journal::SegmentPlace::decode(page.as_ref()).unwrap().id.number;
            pages.iter().map(place).collect()
        }
        other => panic!("{other:?}"),
    }
}

pub(super) async fn info(node: &MediumNode) -> proto::MediumInfo {
    match node.handle(Request::Info { extent: 8192 }).await.unwrap() {
        Response::Info(info) => info,
        other => panic!("{other:?}"),
    }
}
