//! Goal: a compute node uses the media of a data node over the network as its own, and nothing else of the node's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use data::{Params, Superblock};
use journal::SegmentHeader;
use net::{Limits, Remote, TcpDial};
use proto::{CallErrorKind, NODE, NodeMedium, Request, Response, SegmentId, Transport};
use seal::{EpochKeys, Kek, KeyRing, RecoveryKey, WrappedKeys};
use seam::{Rt, TokioRuntime};
use tempfile::TempDir;
use tokio::sync::watch;
use trust::{Authority, Identity, Member, NewIdentity, Role};
use units::{Epoch, Incarnation, MediumId, NodeId, PAGE, PageBuf, SiteId};

use crate::directory::{Entry, Record};
use crate::{DataNode, Directory, Options, save_identity};

const SITE: SiteId = SiteId([3; 16]);
const HERE: NodeId = NodeId([7; 16]);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
const BYTES: u64 = 16 << 20;

struct World {
    rt: Rt,
    authority: Authority,
    folder: TempDir,
    keys: WrappedKeys,
}

impl World {
    fn new() -> Self {
        let rt: Rt = Arc::new(TokioRuntime::new(tokio::runtime::Handle::current()));
        let authority = Authority::create(&*rt, SITE).unwrap();
        let ring = KeyRing::from_master([5; 32]);
        let recovery = RecoveryKey::from_bytes([6; 32]);
        let keys = WrappedKeys::by_key_file(&ring, &Kek::from_bytes([9; 32]), &recovery, &[4; 40]);
        let world = Self { rt, authority, folder: TempDir::new().unwrap(), keys };
        let identity = world.identity(Role::Data, HERE);
        save_identity(&Directory::new(&world.dir()).unwrap(), &identity).unwrap();
        world
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("node")
    }

    fn identity(&self, role: Role, node: NodeId) -> Identity {
        let (new, member) = (NewIdentity::create().unwrap(), Member { site: SITE, role, node });
        let issued = self.authority.issue(&*self.rt, &new.request().unwrap(), &member, YEAR).unwrap();
        new.complete(issued, self.authority.certificate().clone()).unwrap()
    }

    /// A file of zeros.
    fn file(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::File::create(&path).unwrap().set_len(BYTES).unwrap();
        path
    }

    async fn start(&self, media: &[PathBuf]) -> DataNode {
        let options = Options {
            dir: self.dir(),
            media: media.to_vec(),
            listen: ([127, 0, 0, 1], 0).into(),
            backend: media::Backend::Auto,
        };
        DataNode::start(self.rt.clone(), options).await.unwrap()
    }

    fn remote(&self, node: &DataNode, role: Role) -> Remote {
        let identity = self.identity(role, NodeId([8; 16]));
        let (_, tls) = watch::channel(identity.client(&self.rt, None).unwrap());
        let member = identity.member();
        let dial = TcpDial::new(self.rt.clone(), &member, Role::Data, Limits::default(), tls);
        dial.set_address(HERE, node.address());
        let remote = Remote::new(self.rt.clone(), Arc::new(dial));
        remote.place(NODE, HERE);
        remote
    }

    fn superblock(&self, medium: MediumId, generation: u64) -> Superblock {
        let params = Params {
            container_bytes: 128 << 10,
            segment_bytes: 128 << 10,
            segments_max: 12,
            log_pages: 64,
            fragments_max: 256,
        };
        Superblock {
            generation,
            site: SITE,
            medium,
            medium_bytes: BYTES,
            params,
            media: 3,
            released: false,
            keys: self.keys.clone(),
            epochs: EpochKeys::default(),
            recovered_ms: 0,
        }
    }
}

async fn list(remote: &Remote) -> Vec<NodeMedium> {
    match remote.call(NODE, Request::MediumList).await {
        Ok(Response::Media(media)) => media,
        other => panic!("{other:?}"),
    }
}

async fn format(remote: &Remote, superblock: &Superblock) -> Result<(), CallErrorKind> {
    remote.place(superblock.medium, HERE);
    let request = Request::Format(superblock.encode().share());
    remote.call(superblock.medium, request).await.map(drop).map_err(|error| error.kind)
}

async fn rewrite(remote: &Remote, superblock: &Superblock) -> Result<(), CallErrorKind> {
    let request = Request::SuperblockWrite(superblock.encode().share());
    remote.call(superblock.medium, request).await.map(drop).map_err(|error| error.kind)
}

fn at<'a>(media: &'a [NodeMedium], path: &Path) -> &'a NodeMedium {
    media.iter().find(|medium| medium.name == path.display().to_string()).unwrap()
}

fn superblock(medium: &NodeMedium) -> Option<Superblock> {
    medium.superblock.as_ref().map(|page| Superblock::decode(page.as_ref()).unwrap())
}

async fn works(remote: &Remote, medium: MediumId) {
    let id = SegmentId { epoch: Epoch(1), stream: Incarnation(2), number: 0 };
    let header = SegmentHeader { id, slot_bytes: 128 << 10, members: vec![medium] };
    let header = PageBuf::copy_of(&header.encode(&[7; 32]));
    remote.call(medium, Request::SegmentOpen { id, header: header.share() }).await.unwrap();
    let mut page = PageBuf::zeroed(PAGE);
    page.as_mut().fill(2);
    let page = page.share();
    let append = Request::SegmentAppend { id, offset: PAGE as u32, bytes: page.clone() };
    remote.call(medium, append).await.unwrap();
    let read = Request::SegmentRead { id, offset: PAGE as u32, length: PAGE as u32 };
    match remote.call(medium, read).await.unwrap() {
        Response::Bytes(bytes) => assert_eq!(bytes.as_ref(), page.as_ref()),
        other => panic!("{other:?}"),
    }
    remote.call(medium, Request::SegmentFree(vec![id])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_of_a_node_serve_a_compute_node() {
    let world = World::new();
    let paths = [world.file("a"), world.file("b")];
    let node = world.start(&paths).await;
    let remote = world.remote(&node, Role::Compute);
    let blank = list(&remote).await;
    assert_eq!(blank.len(), 2);
    for medium in &blank {
        assert!(medium.superblock.is_none() && medium.trouble.is_none(), "{medium:?}");
        assert_eq!(medium.bytes, BYTES);
    }
    let ids: Vec<MediumId> = paths.iter().map(|path| at(&blank, path).medium).collect();
    assert_ne!(ids[0], ids[1]);
    remote.place(ids[0], HERE);
    let early = remote.call(ids[0], Request::SegmentList).await.unwrap_err();
    assert_ne!(early.kind, CallErrorKind::Unreachable, "a blank medium serves nothing: {early}");
    format(&remote, &world.superblock(ids[0], 1)).await.unwrap();
    format(&remote, &world.superblock(ids[0], 1)).await.expect("asked twice it is done once");
    let again = format(&remote, &world.superblock(ids[0], 2)).await;
    assert_eq!(again, Err(CallErrorKind::Invalid), "it is not formatted a second time");
    works(&remote, ids[0]).await;
    // The node starts anew: what was formatted is served, what was blank keeps its id.
    node.stop();
    let node = started_again(&world).await;
    let remote = world.remote(&node, Role::Compute);
    let media = list(&remote).await;
    assert_eq!(superblock(at(&media, &paths[0])), Some(world.superblock(ids[0], 1)));
    assert_eq!((at(&media, &paths[1]).medium, superblock(at(&media, &paths[1]))), (ids[1], None));
    assert_eq!(node.media(), (2, 1));
    remote.place(ids[0], HERE);
    works(&remote, ids[0]).await;
    // A newer superblock replaces the one there; an older one, one of another medium and one of other sizes do not.
    rewrite(&remote, &world.superblock(ids[0], 7)).await.unwrap();
    assert_eq!(rewrite(&remote, &world.superblock(ids[0], 6)).await, Err(CallErrorKind::Invalid));
    let smaller = Superblock { medium_bytes: BYTES / 2, ..world.superblock(ids[0], 8) };
    assert_eq!(rewrite(&remote, &smaller).await, Err(CallErrorKind::Invalid));
    let foreign = Superblock { site: SiteId([1; 16]), ..world.superblock(ids[0], 8) };
    assert_eq!(rewrite(&remote, &foreign).await, Err(CallErrorKind::Invalid));
    remote.place(ids[1], HERE);
    assert_eq!(rewrite(&remote, &world.superblock(ids[1], 8)).await, Err(CallErrorKind::NotFound));
    assert_eq!(superblock(at(&list(&remote).await, &paths[0])), Some(world.superblock(ids[0], 7)));
    // One that leaves is served no more, and its superblock says so.
    rewrite(&remote, &Superblock { released: true, ..world.superblock(ids[0], 8) }).await.unwrap();
    assert!(remote.call(ids[0], Request::SegmentList).await.is_err());
    assert!(at(&list(&remote).await, &paths[0]).trouble.as_ref().unwrap().contains("has left"));
}

/// The node anew, once the one before has let go of its directory.
async fn started_again(world: &World) -> DataNode {
    for _ in 0..200 {
        let options = Options {
            dir: world.dir(),
            media: Vec::new(),
            listen: ([127, 0, 0, 1], 0).into(),
            backend: media::Backend::Auto,
        };
        match DataNode::start(world.rt.clone(), options).await {
            Ok(node) if node.media().1 > 0 => return node,
            Ok(node) => node.stop(),
            Err(error) => assert_eq!(error.code, "site_busy", "{error}"),
        }
        world.rt.sleep(Duration::from_millis(50)).await;
    }
    panic!("the node does not start again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_that_are_not_the_nodes_are_left_untouched() {
    let world = World::new();
    let (used, other, copy, small) =
        (world.file("used"), world.file("other"), world.file("copy"), world.folder.path().join("small"));
    let gone = world.folder.path().join("gone");
    std::fs::File::create(&small).unwrap().set_len(64 << 10).unwrap();
    write_at(&used, BYTES - 3 * PAGE as u64, b"a file system");
    let foreign = Superblock { site: SiteId([1; 16]), ..world.superblock(MediumId([2; 16]), 1) };
    write_at(&other, 0, foreign.encode().as_ref());
    let first = world.file("first");
    for path in [&first, &copy] {
        write_at(path, 0, world.superblock(MediumId([4; 16]), 1).encode().as_ref());
    }
    let paths = [used.clone(), other.clone(), small.clone(), gone.clone(), first.clone(), copy.clone()];
    let before = paths.clone().map(|path| std::fs::read(path).ok());
    let node = world.start(&paths).await;
    let remote = world.remote(&node, Role::Compute);
    let media = list(&remote).await;
    let trouble = |path: &Path| at(&media, path).trouble.clone().unwrap_or_default();
    assert!(trouble(&used).contains("something stands at its end"), "{}", trouble(&used));
    assert!(trouble(&other).contains("belongs to site 01010101"), "{}", trouble(&other));
    assert!(trouble(&gone).contains("gone"), "{}", trouble(&gone));
    assert!(trouble(&copy).contains("a copy of another medium"), "{}", trouble(&copy));
    for path in [&used, &gone] {
        let blank = world.superblock(at(&media, path).medium, 1);
        assert_eq!(format(&remote, &blank).await, Err(CallErrorKind::Failed), "{}", path.display());
    }
    let tiny = Superblock { medium_bytes: 64 << 10, ..world.superblock(at(&media, &small).medium, 1) };
    assert!(format(&remote, &tiny).await.is_err());
    assert_eq!(format(&remote, &world.superblock(MediumId([77; 16]), 1)).await, Err(CallErrorKind::NotFound));
    for (path, before) in paths.iter().zip(before).filter(|(path, _)| **path != first) {
        assert!(std::fs::read(path).ok() == before, "{}: something was written", path.display());
    }
    // What was not there and comes is found.
    std::fs::File::create(&gone).unwrap().set_len(BYTES).unwrap();
    let media = list(&remote).await;
    assert_eq!(at(&media, &gone).trouble, None);
    format(&remote, &world.superblock(at(&media, &gone).medium, 1)).await.unwrap();
}

fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

/// Formatting that a crash ended half-way is done again, on the medium that the node was formatting and on no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_medium_formatted_half_way_is_blank_again() {
    let world = World::new();
    let (half, used) = (world.file("half"), world.file("used"));
    let entry = |path: &Path, id: u8, formatting| {
        let mut entry = Entry::new(path.to_owned(), MediumId([id; 16]), false);
        entry.formatting = formatting;
        entry
    };
    let mut record = Record::new();
    record.media = vec![entry(&half, 1, true), entry(&used, 2, false)];
    record.store(&Directory::new(&world.dir()).unwrap()).unwrap();
    for path in [&half, &used] {
        write_at(path, 128 << 10, b"half a table");
    }
    let node = world.start(&[]).await;
    let remote = world.remote(&node, Role::Compute);
    let media = list(&remote).await;
    assert_eq!((at(&media, &half).medium, &at(&media, &half).trouble), (MediumId([1; 16]), &None));
    assert!(at(&media, &used).trouble.is_some());
    format(&remote, &world.superblock(MediumId([1; 16]), 1)).await.unwrap();
    works(&remote, MediumId([1; 16])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_compute_nodes_are_served_and_only_once() {
    let world = World::new();
    let node = world.start(&[world.file("a")]).await;
    for role in [Role::Data, Role::Manager] {
        let error = world.remote(&node, role).call(NODE, Request::MediumList).await.unwrap_err();
        assert_eq!(error.kind, CallErrorKind::Unreachable, "{role:?}: {error}");
    }
    let options =
        |dir: PathBuf, listen| Options { dir, media: Vec::new(), listen, backend: media::Backend::Auto };
    let any = ([127, 0, 0, 1], 0).into();
    let twice = DataNode::start(world.rt.clone(), options(world.dir(), any)).await.unwrap_err();
    assert_eq!(twice.code, "site_busy");
    let nobody = DataNode::start(world.rt.clone(), options(world.folder.path().join("new"), any)).await;
    assert_eq!(nobody.unwrap_err().code, "not_joined");
    let compute = world.folder.path().join("compute");
    save_identity(&Directory::new(&compute).unwrap(), &world.identity(Role::Compute, HERE)).unwrap();
    let wrong = DataNode::start(world.rt.clone(), options(compute, any)).await.unwrap_err();
    assert_eq!(wrong.code, "identity_damaged");
    let data = world.folder.path().join("data");
    save_identity(&Directory::new(&data).unwrap(), &world.identity(Role::Data, NodeId([9; 16]))).unwrap();
    let taken = DataNode::start(world.rt.clone(), options(data, node.address())).await.unwrap_err();
    assert_eq!(taken.code, "port_in_use");
}

#[test]
fn a_record_is_stored_as_it_was() {
    let one = r#"{"path":"/dev/sdb","id":"07070707070707070707070707070707","made":false}"#;
    let two =
        r#"{"path":"media/00.img","id":"0102030405060708090a0b0c0d0e0f10","made":true,"formatting":true}"#;
    let text = format!(r#"{{"version":1,"media":[{one},{two}]}}"#);
    let record = Record::decode(text.as_bytes()).unwrap();
    assert_eq!(serde_json::to_string(&record).unwrap(), text);
}

#[test]
fn a_record_that_makes_no_sense_is_refused() {
    for (text, why) in [
        ("", "EOF"),
        (r#"{"version": 2, "media": []}"#, "version 2"),
        (r#"{"version": 1, "media": [], "more": 1}"#, "unknown field"),
        (r#"{"version": 1, "media": [{"path": "/a", "id": "+1", "made": false}]}"#, "32 lower-case"),
    ] {
        let error = Record::decode(text.as_bytes()).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
}
