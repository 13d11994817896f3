//! Goal: damage on some members costs nothing, damage on all is said, and only a batch that was on its way may go.

use std::sync::Arc;

use proto::SegmentId;
use units::{Epoch, Incarnation, PAGE, Seq};

use super::fake::*;
use crate::{BatchHeader, RecoverErrorKind, recover};

struct Scene {
    media: Arc<FakeMedia>,
    segment: SegmentId,
    /// Offset and length of each batch.
    batches: Vec<(usize, usize)>,
}

/// One segment with a start and five batches on three media.
async fn scene(rt: &seam::Rt) -> Scene {
    let media = FakeMedia::new(3);
    let site = Site::open(rt, &media, None, Options::default()).await.unwrap();
    for n in 0..5 {
        end(site.journal.append(vec![write(n, 2000 + 3000 * (n as usize % 2))])).await.unwrap();
    }
    let segment = site.witness().unwrap();
    let bytes = media.with(|inner| inner.media[&medium(1)].segments[&segment].clone());
    let mut batches = Vec::new();
    let mut at = PAGE;
    while let Ok(header) = BatchHeader::peek(&bytes[at..]) {
        batches.push((at, header.batch_bytes()));
        at += header.batch_bytes();
    }
    assert_eq!(batches.len(), 6);
    Scene { media: media.restarted(), segment, batches }
}

impl Scene {
    fn damage(&self, members: u8, at: usize, act: impl Fn(&mut u8)) {
        self.media.with(|inner| {
            for n in 1..=members {
                let bytes = inner.media.get_mut(&medium(n)).unwrap().segments.get_mut(&self.segment).unwrap();
                act(&mut bytes[at]);
            }
        });
    }

    async fn found(&self) -> Result<usize, RecoverErrorKind> {
        let recovered = recover(&*self.media, &self.media.ids(), &KEY, &by_last(Some(self.segment))).await;
        recovered.map(|r| data_of(&r.expect("there is a journal")).len()).map_err(|error| error.kind)
    }
}

#[test]
fn a_batch_damaged_on_some_members_is_read_from_another() {
    run(1, async |rt| {
        let scene = scene(&rt).await;
        for (at, bytes) in scene.batches.clone() {
            for byte in [0, 9, 40, 70, 90, 97, bytes / 2] {
                scene.damage(2, at + byte, |b| *b ^= 0x10);
                assert_eq!(scene.found().await, Ok(5));
                scene.damage(2, at + byte, |b| *b ^= 0x10);
            }
        }
    });
}

#[test]
fn different_batches_damaged_on_every_member_are_read_piecemeal() {
    run(1, async |rt| {
        let scene = scene(&rt).await;
        for (i, (at, _)) in scene.batches.iter().enumerate() {
            let keep = i as u8 % 3;
            scene.media.with(|inner| {
                for n in (0..3).filter(|n| *n != keep) {
                    let medium = inner.media.get_mut(&medium(n + 1)).unwrap();
                    medium.segments.get_mut(&scene.segment).unwrap()[at + 100] ^= 1;
                }
            });
        }
        assert_eq!(scene.found().await, Ok(5));
    });
}

#[test]
fn a_batch_damaged_on_all_members_is_an_error_unless_it_is_the_last() {
    run(1, async |rt| {
        let scene = scene(&rt).await;
        let last = scene.batches.len() - 1;
        for (i, (at, _)) in scene.batches.clone().into_iter().enumerate() {
            for byte in [0, 30, 60, 75, 99] {
                scene.damage(3, at + byte, |b| *b ^= 4);
                let expected = if i == last { Ok(4) } else { Err(RecoverErrorKind::Lost) };
                assert_eq!(scene.found().await, expected, "batch {i}, byte {byte}");
                scene.damage(3, at + byte, |b| *b ^= 4);
            }
        }
    });
}

/// Torn on one medium, damaged on the others, with a sound batch behind it: never the tail.
#[test]
fn zeros_in_the_middle_are_not_the_tail() {
    run(1, async |rt| {
        let scene = scene(&rt).await;
        assert_eq!(scene.batches.len(), 6);
        for (i, (at, bytes)) in scene.batches.clone().into_iter().enumerate().skip(1) {
            let saved = scene.media.restarted();
            (at..at + bytes).for_each(|at| scene.damage(3, at, |b| *b = 0));
            let expected = if i == 5 { Ok(4) } else { Err(RecoverErrorKind::Lost) };
            assert_eq!(scene.found().await, expected, "batch {i}");
            let media = saved.with(|inner| std::mem::take(&mut inner.media));
            scene.media.with(|inner| inner.media = media);
        }
    });
}

#[test]
fn the_witness_is_believed() {
    run(1, async |rt| {
        let scene = scene(&rt).await;
        let ids = scene.media.ids();
        let ask = async |witness| {
            let found = recover(&*scene.media, &ids, &KEY, &by_last(witness)).await;
            found.map(|r| r.map(|r| r.next_seq)).map_err(|error| error.kind)
        };
        let Scene { segment, .. } = scene;
        assert_eq!(ask(None).await, Ok(Some(Seq(6))));
        assert_eq!(ask(Some(segment)).await, Ok(Some(Seq(6))));
        let behind = SegmentId { epoch: Epoch(0), stream: Incarnation(1), number: 9 };
        assert_eq!(ask(Some(behind)).await, Ok(Some(Seq(6))));
        let ahead = SegmentId { number: segment.number + 1, ..segment };
        assert_eq!(ask(Some(ahead)).await, Err(RecoverErrorKind::Lost));
        let newer = SegmentId { epoch: Epoch(2), stream: Incarnation(0), number: 0 };
        assert_eq!(ask(Some(newer)).await, Err(RecoverErrorKind::Lost));
        // Nothing there at all.
        assert!(recover(&*scene.media, &[], &KEY, &by_last(None)).await.unwrap().is_none());
        assert!(recover(&*scene.media, &[], &KEY, &by_last(Some(segment))).await.is_err());
    });
}

#[test]
fn a_damaged_start_is_an_error_when_the_segment_was_in_use() {
    run(1, async |rt| {
        let media = FakeMedia::new(3);
        let site = Site::open(&rt, &media, None, Options::default()).await.unwrap();
        end(site.journal.append(vec![hole(1)])).await.unwrap();
        let before = site.witness().unwrap();
        end(site.journal.rotate()).await.unwrap();
        let segment = site.witness().unwrap();
        media.with(|inner| {
            for medium in inner.media.values_mut() {
                medium.segments.get_mut(&segment).unwrap()[PAGE + 100] ^= 1;
            }
        });
        assert!(recover(&*media, &media.ids(), &KEY, &by_last(Some(segment))).await.is_err());
        // Without the witness, or with one that stands before it, it was never used: the stream ends before it.
        for witness in [None, Some(before)] {
            let recovered = recover(&*media, &media.ids(), &KEY, &by_last(witness)).await.unwrap().unwrap();
            assert_eq!(recovered.next_seq, Seq(2));
        }
    });
}

/// A medium that cannot read large pieces is read in small ones; one that does not answer is not asked for ever.
#[test]
fn media_that_read_badly_or_not_at_all() {
    run(1, async |rt| {
        let scene = scene(&rt).await;
        scene.media.with(|inner| {
            let media = &mut inner.media;
            let (at, bytes) = scene.batches[2];
            assert!(bytes > PAGE);
            media.get_mut(&medium(1)).unwrap().segments.get_mut(&scene.segment).unwrap()[at + 9] ^= 1;
            media.get_mut(&medium(2)).unwrap().unreadable = true;
            media.get_mut(&medium(3)).unwrap().down = true;
            inner.reads = 0;
        });
        let lost = Err(RecoverErrorKind::Lost);
        assert_eq!(scene.found().await, lost, "a batch longer than a page is on no medium that reads");
        scene.media.with(|inner| inner.media.get_mut(&medium(3)).unwrap().down = false);
        assert_eq!(scene.found().await, Ok(5));
    });
    run(2, async |rt| {
        let scene = scene(&rt).await;
        let listed = scene.media.restarted();
        // It tells of its segments and is silent from then on.
        listed.with(|inner| inner.media.get_mut(&medium(2)).unwrap().mute = true);
        let ids = listed.ids();
        let unknown = by_last(None);
        let recovered = recover(&*listed, &ids, &KEY, &unknown);
        let recovered = seam::timeout(&*rt, std::time::Duration::from_secs(5), recovered).await;
        assert_eq!(data_of(&recovered.unwrap().unwrap().unwrap()).len(), 5);
        listed.with(|inner| assert!(inner.reads < 200, "{} requests", inner.reads));
    });
}

#[test]
fn a_foreign_key_reads_nothing() {
    run(1, async |rt| {
        let scene = scene(&rt).await;
        let other = [8; 32];
        assert!(recover(&*scene.media, &scene.media.ids(), &other, &by_last(None)).await.unwrap().is_none());
        assert!(
            recover(&*scene.media, &scene.media.ids(), &other, &by_last(Some(scene.segment))).await.is_err()
        );
    });
}
