//! Goal: every message comes back as it was sent and is sent as the golden file has it; nothing else is taken for one.

use container::FragmentHeader;
use seam::testing::replay;
use units::{ContainerId, Epoch, Incarnation, MediumId, PAGE, PageBuf, PageSlice};

use super::*;
use crate::{CallError, CallErrorKind, MediumInfo, NodeMedium, Request, Response, SegmentId};

const BY: Epoch = Epoch(0x0102_0304_0506_0708);
const MEDIUM: MediumId = MediumId([0xab; 16]);
const GOLDEN: &str = include_str!("golden.txt");
const MUTATIONS: u64 = 50_000;

fn container(number: u32) -> ContainerId {
    ContainerId { incarnation: Incarnation(300), number, class: 2, row: 700 }
}

fn segment(number: u32) -> SegmentId {
    SegmentId { epoch: Epoch(3), stream: Incarnation(u64::MAX), number }
}

fn page(byte: u8) -> PageSlice {
    PageBuf::copy_of(&[byte; PAGE]).share()
}

fn header() -> Box<FragmentHeader> {
    let payload = page(7);
    Box::new(FragmentHeader {
        container: container(9),
        index: 1,
        k: 4,
        m: 2,
        container_bytes: 4 * PAGE as u32,
        allocation: 5,
        locked_until: 6,
        members: vec![MEDIUM; 6],
        page_crcs: FragmentHeader::crcs_of(&payload),
    })
}

fn requests() -> Vec<(&'static str, Request)> {
    let (first, after) = (container(1), Some(container(2)));
    vec![
        ("SegmentOpen", Request::SegmentOpen { id: segment(1), header: page(1) }),
        ("SegmentAppend", Request::SegmentAppend { id: segment(2), offset: 4096, bytes: page(2) }),
        ("SegmentList", Request::SegmentList),
        ("SegmentRead", Request::SegmentRead { id: segment(3), offset: 8192, length: 4096 }),
        ("SegmentFree", Request::SegmentFree(vec![segment(4), segment(5)])),
        ("FragmentWrite", Request::FragmentWrite { header: header(), payload: page(7), replace: true }),
        (
            "FragmentRead",
            Request::FragmentRead { container: first, index: 3, offset: 100, length: 200, verify: true },
        ),
        ("FragmentHeader", Request::FragmentHeader { container: first, index: 4 }),
        ("FragmentFree", Request::FragmentFree(vec![first, container(2)])),
        ("FragmentLock", Request::FragmentLock { containers: vec![first], until_ms: 1 << 40 }),
        ("LockList", Request::LockList { after, limit: 10 }),
        ("FragmentFreeAt", Request::FragmentFreeAt(vec![(first, 5)])),
        ("FragmentList", Request::FragmentList { after: None, limit: 1000 }),
        ("Info", Request::Info { extent: 1 << 23 }),
        ("Seal", Request::Seal),
        ("Lease", Request::Lease),
        ("Release", Request::Release),
        ("MediumList", Request::MediumList),
        ("Format", Request::Format(page(8))),
        ("SuperblockWrite", Request::SuperblockWrite(page(9))),
    ]
}

fn media() -> Vec<NodeMedium> {
    let medium = |byte, superblock, trouble: Option<&str>| NodeMedium {
        medium: MediumId([byte; 16]),
        bytes: 1 << 30,
        name: format!("/dev/sd{byte}"),
        superblock,
        trouble: trouble.map(str::to_owned),
    };
    vec![
        medium(1, Some(page(1)), None),
        medium(2, None, None),
        medium(3, Some(page(3)), Some("it failed")),
        medium(4, None, Some("it cannot be read")),
    ]
}

fn answers() -> Vec<(&'static str, Result<Response, CallError>)> {
    let info = MediumInfo {
        capacity: 1,
        free: 2,
        free_extents: 3,
        room_below: u64::MAX,
        slots: 5,
        slots_free: 6,
        sealed: Epoch(7),
    };
    let mut all = vec![
        ("Done", Ok(Response::Done)),
        ("Segments", Ok(Response::Segments(vec![page(3), page(4)]))),
        ("SegmentsNone", Ok(Response::Segments(Vec::new()))),
        ("Bytes", Ok(Response::Bytes(ReadBytes::new(PageBuf::copy_of(&[5; 6000]), 10, 5000)))),
        ("Header", Ok(Response::Header(header()))),
        ("Fragments", Ok(Response::Fragments(vec![(container(1), 2)]))),
        ("Locks", Ok(Response::Locks(vec![(container(1), 1 << 41)]))),
        ("MediumInfo", Ok(Response::Info(info))),
        ("Media", Ok(Response::Media(media()))),
        ("MediaNone", Ok(Response::Media(Vec::new()))),
    ];
    let kinds = [
        ("Unreachable", CallErrorKind::Unreachable),
        ("Failed", CallErrorKind::Failed),
        ("NoSpace", CallErrorKind::NoSpace),
        ("NotFound", CallErrorKind::NotFound),
        ("Locked", CallErrorKind::Locked),
        ("Corrupt", CallErrorKind::Corrupt),
        ("Fenced", CallErrorKind::Fenced),
        ("Invalid", CallErrorKind::Invalid),
    ];
    all.extend(kinds.map(|(name, kind)| {
        (name, Err(CallError { kind, medium: MEDIUM, reason: format!("because of {name}") }))
    }));
    all
}

/// Start, front and bulk of a frame, as they arrive.
fn arrived(frame: &Frame) -> (FrameStart, Vec<u8>, PageBuf) {
    let start = FrameStart::decode(frame.front.first_chunk().unwrap()).unwrap();
    let bulk: Vec<u8> = frame.bulk.parts().flatten().copied().collect();
    assert_eq!((start.head_bytes, start.bulk_bytes), (frame.front.len() - FRAME_BYTES, bulk.len()));
    (start, frame.front.clone(), PageBuf::copy_of(&bulk))
}

fn frames() -> Vec<(&'static str, Frame)> {
    let asked = requests().into_iter();
    let mut all: Vec<_> =
        asked.map(|(name, message)| (name, request(77, BY, MEDIUM, 30_000, &message).unwrap())).collect();
    all.extend(answers().into_iter().map(|(name, message)| (name, answer(77, &message).unwrap())));
    all.push(("Cancel", cancellation(77)));
    all
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn messages_come_back_as_they_were_sent() {
    for (name, message) in requests() {
        let (start, mut front, bulk) = arrived(&request(1, BY, MEDIUM, 5, &message).unwrap());
        assert_eq!((start.kind, start.number, start.timeout_ms), (FrameKind::Request, 1, 5));
        let (by, medium, back) = decode_request(&start, &mut front, bulk).unwrap();
        assert_eq!((by, medium, format!("{back:?}")), (BY, MEDIUM, format!("{message:?}")), "{name}");
        let again = request(1, BY, MEDIUM, 5, &back).unwrap();
        assert!(again.bulk.parts().eq(request(1, BY, MEDIUM, 5, &message).unwrap().bulk.parts()), "{name}");
    }
    for (name, message) in answers() {
        let (start, mut front, bulk) = arrived(&answer(2, &message).unwrap());
        assert_eq!((start.kind, start.number), (FrameKind::Answer, 2));
        let back = decode_answer(&start, MEDIUM, &mut front, bulk).unwrap();
        match (&back, &message) {
            (Ok(Response::Bytes(back)), Ok(Response::Bytes(sent))) => {
                assert_eq!(back.as_ref(), sent.as_ref())
            }
            (Ok(Response::Segments(back)), Ok(Response::Segments(sent))) => {
                assert!(back.iter().map(AsRef::as_ref).eq(sent.iter().map(AsRef::<[u8]>::as_ref)), "{name}");
            }
            (Ok(Response::Media(back)), Ok(Response::Media(sent))) => {
                let plain = |medium: &NodeMedium| {
                    let page = medium.superblock.as_ref().map(|page| page.as_ref().to_vec());
                    format!("{:?} {page:?}", NodeMedium { superblock: None, ..medium.clone() })
                };
                assert!(back.iter().map(plain).eq(sent.iter().map(plain)), "{name}");
            }
            _ => assert_eq!(format!("{back:?}"), format!("{message:?}"), "{name}"),
        }
        assert_eq!(answer(2, &back).unwrap().front, answer(2, &message).unwrap().front, "{name}");
    }
    let start = FrameStart::decode(cancellation(3).front.first_chunk().unwrap()).unwrap();
    assert_eq!((start.kind, start.number, start.rest_bytes()), (FrameKind::Cancel, 3, 0));
}

#[test]
fn messages_are_sent_as_the_golden_file_has_them() {
    let lines =
        |(name, frame): &(&str, Frame)| format!("{name} {} + {}\n", hex(&frame.front), frame.bulk.len());
    let mut now: String = frames().iter().map(lines).collect();
    let hello = Hello::new(1 << 20, NodeId([9; 16]));
    now += &format!("Hello {}\n", hex(&hello.encode()));
    let refusals = [Refusal::Version { least: 1, most: 2 }, Refusal::Busy, Refusal::NotAllowed];
    now.extend(refusals.map(|refusal| format!("{refusal:?} {}\n", hex(&refusal.encode()))));
    if std::env::var_os("HOLDFAST_REGENERATE").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/wire/golden.txt"), &now).unwrap();
        return;
    }
    assert_eq!(now, GOLDEN, "made anew with HOLDFAST_REGENERATE=1");
}

#[test]
fn versions_are_agreed_on_or_refused() {
    let here = Hello { least: 2, most: 4, in_flight_bytes: 1, node: NodeId([1; 16]) };
    assert_eq!(Hello::decode(&here.encode()), Ok(Ok(here)));
    for (least, most, agreed) in
        [(1, 2, Some(2)), (3, 9, Some(4)), (2, 3, Some(3)), (1, 1, None), (5, 6, None)]
    {
        let other = Hello { least, most, ..here };
        assert_eq!(
            here.common(&other),
            agreed.ok_or(Refusal::Version { least: 2, most: 4 }),
            "{least} {most}"
        );
    }
    for refusal in [Refusal::Version { least: 1, most: 2 }, Refusal::Busy, Refusal::NotAllowed] {
        assert_eq!(Hello::decode(&refusal.encode()), Ok(Err(refusal)));
    }
    assert_eq!(Refusal::Version { least: 3, most: 3 }.to_string(), "it speaks version 3 only");
    let foreign = *b"GET / HTTP/1.1\r\nHost: holdfast\r\n";
    assert!(Hello::decode(&foreign).is_err());
}

#[test]
fn what_is_damaged_or_too_long_is_refused() {
    let (start, front, bulk) = arrived(&request(1, BY, MEDIUM, 5, &requests().swap_remove(1).1).unwrap());
    for at in 0..front.len() * 8 {
        let mut front = front.clone();
        front[at / 8] ^= 1 << (at % 8);
        let Ok(start) = FrameStart::decode(front.first_chunk().unwrap()) else { continue };
        assert!(decode_request(&start, &mut front, bulk.clone()).is_err(), "bit {at}");
    }
    assert!(decode_request(&start, &mut front[..40].to_vec(), bulk.clone()).is_err(), "cut short");
    assert!(decode_request(&start, &mut front.clone(), PageBuf::zeroed(0)).is_err(), "no pages");
    assert!(decode_answer(&start, MEDIUM, &mut front.clone(), bulk).is_err(), "no answer");
    let many = Request::FragmentFree(vec![container(u32::MAX); 1 << 17]);
    assert!(request(1, BY, MEDIUM, 5, &many).unwrap_err().to_string().contains("too long"));
    let large = Ok(Response::Segments(vec![page(1); BULK_BYTES_MAX / PAGE + 1]));
    assert!(answer(1, &large).is_err());
    let mut raw = front.clone();
    raw[16..20].copy_from_slice(&(HEAD_BYTES_MAX as u32 + 1).to_le_bytes());
    assert!(FrameStart::decode(raw.first_chunk().unwrap()).is_err(), "a long head");
    raw.copy_from_slice(&front);
    raw[20..24].copy_from_slice(&(BULK_BYTES_MAX as u32 + 1).to_le_bytes());
    assert!(FrameStart::decode(raw.first_chunk().unwrap()).is_err(), "a long bulk");
}

/// A reason of any length and content is cut at a character.
#[test]
fn long_reasons_are_cut() {
    let error = CallError { kind: CallErrorKind::Failed, medium: MEDIUM, reason: "ä".repeat(5000) };
    let (start, mut front, bulk) = arrived(&answer(1, &Err(error)).unwrap());
    let back = decode_answer(&start, MEDIUM, &mut front, bulk).unwrap().unwrap_err();
    assert_eq!(back.reason, "ä".repeat(2048));
}

mod fuzz {
    use super::*;

    /// Puts the check sum right, so that what lies behind it is reached.
    fn mend(input: &mut [u8]) {
        if input.len() >= FRAME_BYTES {
            let head = u32::from_le_bytes(*input[16..].first_chunk().unwrap()) as usize;
            let end = (FRAME_BYTES + head).min(input.len());
            input[CRC_AT..FRAME_BYTES].fill(0);
            let crc = crc32c(&input[..end]);
            input[CRC_AT..FRAME_BYTES].copy_from_slice(&crc.to_le_bytes());
        }
    }

    #[test]
    fn damaged_frames() {
        let corpus: Vec<Vec<u8>> = frames()
            .iter()
            .map(|(_, frame)| {
                [&frame.front[..], &frame.bulk.parts().flatten().copied().collect::<Vec<u8>>()].concat()
            })
            .collect();
        replay(&corpus, MUTATIONS, |input| {
            crate::wire::fuzz_body(input);
            let mut mended = input.to_vec();
            mend(&mut mended);
            crate::wire::fuzz_body(&mended);
        });
    }
}
