//! The roles of a site of many nodes: managers, data nodes, and how nodes join and leave.
//!
//! ```text
//!  DIR/config.toml   settings of a role, where no option says else:
//!                    listen = "10.0.0.7:7420"    (data, compute)
//!                    nbd_group = "kvm"           (compute)
//!                    nbd_listen = "10.0.0.7:10809" (compute)
//!                    client_memory = "4G"        (compute)
//!                    rebuild_after = "10m"       (compute)
//!                    media = ["/dev/sdb"]        (data)
//!                    io = "ring"                 (data)
//!                    log = "debug"
//! ```

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::{Error, code, types};
use clap::ValueEnum;
use cluster::{
    Catalogue, EtcdAccess, Founded, Founding, JoinToken, Joining, Manager, Membership, Meta, Node, Port,
    State,
};
use node::{DataNode, Directory};
use seam::Rt;
use serde::Deserialize;
use tokio::sync::watch;
use trust::Access;
use trust::rustls::ServerConfig;
use units::NodeId;

use crate::arguments::{
    ComputeArguments, DataArguments, Found, Io, JoinArguments, Level, ManagerArguments, NodeCommand, Role,
};
use crate::failure::Failure;
use crate::host::client_limits;
use crate::output::Printer;
use crate::serve::{Stop, log_to_stderr};

/// Longest token that is read, bytes.
const TOKEN_MAX: u64 = 1024;
/// How often a manager looks whether a join or a removal was cut off half-way.
const SETTLE_EVERY: Duration = Duration::from_secs(60);

/// `DIR/config.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    listen: Option<SocketAddr>,
    nbd_group: Option<String>,
    nbd_listen: Option<SocketAddr>,
    client_memory: Option<String>,
    rebuild_after: Option<String>,
    media: Vec<PathBuf>,
    io: Option<String>,
    log: Option<String>,
}

impl Config {
    fn load(directory: &Directory) -> Result<Self, Failure> {
        let path = directory.file("config.toml");
        let Some(bytes) = machine::read_file(&path)? else { return Ok(Self::default()) };
        let wrong =
            |reason: String| Failure::failed(code::CONFIG_INVALID, format!("{}: {reason}", path.display()));
        let text = String::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
        toml::from_str(&text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))
    }
}

/// An option, or what the settings say in its place.
fn choice<T: ValueEnum>(given: Option<T>, setting: Option<&str>, name: &str, else_: T) -> Result<T, Failure> {
    match (given, setting) {
        (Some(given), _) => Ok(given),
        (None, None) => Ok(else_),
        (None, Some(text)) => T::from_str(text, false).map_err(|_| {
            let known = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let known: Vec<String> = known.map(|value| value.get_name().to_owned()).collect();
            let reason = format!("config.toml: {name} is one of {}, not {text:?}", known.join(", "));
            Failure::failed(code::CONFIG_INVALID, reason)
        }),
    }
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

/// Founds a site of many nodes.
pub(crate) fn found(rt: &Rt, options: Found, printer: Printer) -> Result<(), Failure> {
    let directory = Directory::new(&options.dir)?;
    let Found { name, listen, etcd, data_nodes, recovery_key_file, .. } = options;
    let founding = Founding { name, listen, etcd, data_nodes, recovery_key_file };
    let site = cluster::found(rt, &directory, &founding)?;
    let recovery_file = founding.recovery_key_file(&directory);
    let dir = directory.root().display().to_string();
    let settings = founding.etcd.iter().map(|(name, _)| format!("{dir}/etcd/{name}/etcd.yaml"));
    let recovery_key = recovery_file.display().to_string();
    let founded = types::Founded {
        founded: dir.clone(),
        site: site.to_string(),
        etcd: settings.collect(),
        recovery_key: recovery_key.clone(),
    };
    let starts: Vec<String> =
        founded.etcd.iter().map(|file| format!("  etcd --config-file {file}")).collect();
    let text = format!(
        "site {site} founded in {dir}; start etcd with\n{}\n(each folder can move to the member's host; its paths \
         stand in etcd.yaml), then the manager with\n  holdfast manager --dir {dir}\n\
         the recovery key is in {recovery_key}: keep it apart from the site",
        starts.join("\n")
    );
    printer.done(&founded, &text)
}

/// Makes the metadata store of a site anew.
pub(crate) async fn restore(rt: Rt, dir: &Path, missing: usize, printer: Printer) -> Result<(), Failure> {
    let catalogue = Catalogue::load(&Directory::new(dir)?)?;
    let (manager, founded, meta) = open_manager(&rt, dir).await?;
    if missing > 0 {
        compute::allow_missing(&*meta, missing).await?;
    }
    let restored = catalogue.restore(&*meta, &manager).await?;
    let site = founded.identity.member().site.to_string();
    let text =
        format!("the metadata store of site {site} has its {} nodes again; start them", restored.nodes);
    printer.done(
        &types::MetadataRestored { site, nodes: restored.nodes as u64, taken_ms: restored.taken_ms },
        &text,
    )
}

/// Joins a site.
pub(crate) async fn join(rt: Rt, options: JoinArguments, printer: Printer) -> Result<(), Failure> {
    let text = match options.token.as_str() {
        "-" => {
            let mut text = String::new();
            let read = std::io::stdin().lock().take(TOKEN_MAX).read_to_string(&mut text);
            read.map_err(|error| Failure::of_io(code::FILE_ERROR, "standard input", &error))?;
            text
        }
        given => given.to_owned(),
    };
    let token = JoinToken::parse(&text)?;
    let directory = Directory::new(&options.dir)?;
    let joining = Joining { name: options.name, address: options.listen };
    let member = cluster::join(&rt, &directory, &token, &joining).await?;
    let dir = directory.root().display().to_string();
    let role = member.role.as_str().to_owned();
    let joined = types::Joined {
        joined: dir.clone(),
        id: hex(&member.node.0),
        role: role.clone(),
        site: member.site.to_string(),
    };
    let text =
        format!("joined site {} as node {}; go on with: holdfast {role} --dir {dir}", joined.site, joined.id);
    printer.done(&joined, &text)
}

/// A manager's directory and the metadata store, for a command.
async fn open_manager(rt: &Rt, dir: &Path) -> Result<(Manager, Founded, Arc<Meta>), Failure> {
    let founded = cluster::load_founded(&Directory::new(dir)?)?;
    let meta = cluster::connect(rt, &founded.identity, &founded.access).await?;
    Ok((manager_of(rt, dir, meta.clone())?, founded, meta))
}

fn manager_of(rt: &Rt, dir: &Path, meta: Arc<Meta>) -> Result<Manager, Failure> {
    let founded = cluster::load_founded(&Directory::new(dir)?)?;
    let site = founded.identity.member().site;
    Ok(Manager::new(rt, meta.clone(), meta, founded.authority, site, founded.access, founded.key))
}

/// Makes the certificate of a client that is no node.
async fn add_client(
    rt: &Rt,
    name: String,
    dir: &Path,
    out: &Path,
    life: Duration,
    printer: Printer,
) -> Result<(), Failure> {
    let (manager, ..) = open_manager(rt, dir).await?;
    let client = manager.new_client(&name, life).await?;
    let folder = Directory::new(out)?;
    machine::make_directory(folder.root())?;
    let files = [
        ("ca-cert.pem", trust::certificate_pem(client.authority())),
        ("client-cert.pem", trust::certificate_pem(client.certificate())),
        ("client-key.pem", trust::key_pem(client.key())),
    ];
    for (file, text) in &files {
        machine::replace_file(&folder.file(file), text.as_bytes())?;
    }
    let ends_ms = trust::ends_ms(client.certificate()).unwrap_or_default();
    let out = folder.root().display().to_string();
    let text = format!("client {name}: its certificate is in {out}, and good until it is removed or ends");
    printer.done(&types::NewClient { client: name, folder: out, certificate_ends_ms: ends_ms }, &text)
}

/// Commands about nodes.
pub(crate) async fn node(rt: Rt, command: NodeCommand, printer: Printer) -> Result<(), Failure> {
    match command {
        NodeCommand::List { dir } => {
            let (_, _, meta) = open_manager(&rt, &dir).await?;
            let (nodes, media) = (cluster::nodes(&*meta).await?, compute::media_of_nodes(&*meta).await?);
            printer.nodes(&types::List { items: nodes.iter().map(|node| shown(node, &media)).collect() })
        }
        NodeCommand::Add { role, dir, life } => {
            let (manager, founded, _) = open_manager(&rt, &dir).await?;
            let role = match role {
                Role::Data => trust::Role::Data,
                Role::Compute => trust::Role::Compute,
            };
            let token = manager.new_token(role, founded.listen, life).await?.to_text();
            let shown =
                types::Token { token: token.clone(), role: role.as_str().to_owned(), life_s: life.as_secs() };
            printer.done(&shown, &token)
        }
        NodeCommand::AddClient { name, dir, out, life } => {
            add_client(&rt, name, &dir, &out, life, printer).await
        }
        NodeCommand::Drain { node, dir, cancel } => {
            let (manager, _, meta) = open_manager(&rt, &dir).await?;
            if manager.node(&node).await?.role == trust::Role::Manager {
                return Err(Failure::usage(
                    format!("{node}: a manager holds nothing"),
                    "stop it, or remove it",
                ));
            }
            let state = if cancel { State::Active } else { State::Draining };
            let node = manager.set_state(&node, state).await?;
            let media = compute::media_of_nodes(&*meta).await?;
            let told = if cancel { "stays" } else { "is being emptied: see `node list`" };
            printer.done(&shown(&node, &media), &format!("node {} {told}", node.name))
        }
        NodeCommand::Remove { node, dir, lost, yes } => {
            let (manager, founded, meta) = open_manager(&rt, &dir).await?;
            let found = manager.node(&node).await?;
            if found.id == founded.identity.member().node {
                let reason = format!("{}: a manager does not remove itself", found.name);
                return Err(Failure::usage(reason, "remove it from another manager"));
            }
            let media = compute::media_of_nodes(&*meta).await?.get(&found.id).copied().unwrap_or_default();
            if media > 0 && !lost {
                let reason = format!("{} media of the site are on {}", media, found.name);
                return Err(Error::new(code::NODE_HAS_MEDIA, reason).into());
            }
            crate::commands::really(yes, || format!("node {} would be out of the site", found.name))?;
            let gone = manager.remove(&node).await?;
            compute::end_turn(&*meta, gone.id).await?;
            let deleted = types::Deleted { deleted: gone.name.clone(), trash: None };
            printer.done(&deleted, &format!("node {} removed; its certificates are revoked", gone.name))
        }
    }
}

fn shown(node: &Node, media: &BTreeMap<NodeId, u64>) -> types::Node {
    let holds = (node.role == trust::Role::Data).then(|| media.get(&node.id).copied().unwrap_or_default());
    types::Node {
        media: holds,
        id: hex(&node.id.0),
        name: node.name.clone(),
        role: node.role.as_str().to_owned(),
        address: node.address.map(|address| address.to_string()),
        state: node.state.as_str().to_owned(),
        joined_ms: node.joined_ms,
        certificate_ends_ms: node.ends_ms(),
    }
}

fn say(printer: Printer, directory: &Directory, role: &str, address: SocketAddr) {
    let serving = directory.root().display().to_string();
    let text = format!("{role} node serves on {address}");
    let said = types::NodeServing { serving, role: role.to_owned(), address: address.to_string() };
    if let Err(failure) = printer.done(&said, &text) {
        // Nobody listens; the node serves all the same.
        tracing::warn!(?failure, "not said");
    }
}

/// `holdfast manager`: serves until SIGTERM or SIGINT.
pub(crate) async fn manager(rt: Rt, options: ManagerArguments, printer: Printer) -> Result<(), Failure> {
    let directory = Directory::new(&options.dir)?;
    let config = Config::load(&directory)?;
    log_to_stderr(choice(options.log, config.log.as_deref(), "log", Level::Info)?);
    let mut stop = Stop::new()?;
    let founded = cluster::load_founded(&directory)?;
    let _lock = machine::Lock::take(&directory.file("lock"))?;
    let begun = Membership::begin(&rt, &directory, founded.identity.clone(), &founded.access);
    let mut membership = tokio::select! {
        membership = begun => membership,
        () = stop.wait() => return Ok(()),
    };
    let manager = Arc::new(manager_of(&rt, &options.dir, membership.meta.clone())?);
    manager.enrol(&founded.identity, &founded.name, founded.listen, founded.birth.as_ref()).await?;
    let (access, served) = watch::channel(manager_access(&rt, &membership)?);
    let port = Port::start(&rt, manager.clone(), served, founded.listen).await?;
    say(printer, &directory, "manager", port.address());
    let (membership_meta, roster) = (membership.meta.clone(), membership.roster.clone());
    let keep = async {
        while membership.changed().await {
            match manager_access(&rt, &membership) {
                Ok(next) => drop(access.send_replace(next)),
                Err(failure) => tracing::warn!(?failure, "certificates stay as they are"),
            }
        }
        std::future::pending::<()>().await;
    };
    let settle = async {
        loop {
            if let Err(error) = manager.settle_users().await {
                tracing::debug!(%error, "who may use the metadata store is not looked at");
            }
            rt.sleep(SETTLE_EVERY).await;
        }
    };
    let copy = Catalogue::keep(&rt, membership_meta, &directory, roster);
    tokio::select! {
        () = keep => {}
        () = copy => {}
        () = settle => {}
        () = stop.wait() => {}
    }
    tracing::info!("stopped");
    Ok(())
}

fn manager_access(rt: &Rt, membership: &Membership) -> Result<Arc<Access<ServerConfig>>, Failure> {
    const ALL: [trust::Role; 3] = [trust::Role::Data, trust::Role::Compute, trust::Role::Manager];
    let revoked = membership.roster.borrow().revoked.clone();
    let access = membership.identity.borrow().open_server(rt, &ALL, revoked.as_ref());
    access.map_err(|error| Failure::failed(code::IDENTITY_DAMAGED, error.to_string()))
}

/// `holdfast compute`: serves, or stands by, until SIGTERM or SIGINT.
pub(crate) async fn compute(rt: Rt, options: ComputeArguments, printer: Printer) -> Result<(), Failure> {
    let directory = Directory::new(&options.dir)?;
    let config = Config::load(&directory)?;
    log_to_stderr(choice(options.log, config.log.as_deref(), "log", Level::Info)?);
    let mut stop = Stop::new()?;
    let joined = EtcdAccess::load(&directory)?.listen;
    let listen = options.listen.or(config.listen).or(joined).ok_or_else(|| no_address(&directory))?;
    let nbd_listen = options.nbd_listen.or(config.nbd_listen);
    let nbd_group = options.nbd_group.or(config.nbd_group).as_deref().map(machine::group_id).transpose()?;
    let rebuild_after = match (options.rebuild_after, config.rebuild_after.as_deref()) {
        (Some(given), _) => Some(given),
        (None, setting) => setting.map(api::parse_span).transpose()?,
    };
    let client_memory = match (options.client_memory, config.client_memory.as_deref()) {
        (Some(given), _) => Some(given),
        (None, setting) => setting.map(api::parse_size).transpose()?,
    };
    let clients = client_limits(client_memory);
    let (told, stopping) = watch::channel(false);
    let run = compute::run(
        rt,
        compute::ComputeOptions { dir: options.dir, listen, nbd_listen, nbd_group, clients, rebuild_after },
        stopping,
        |address| say(printer, &directory, "compute", address),
    );
    let mut run = std::pin::pin!(run);
    tokio::select! {
        ended = &mut run => return Ok(ended?),
        () = stop.wait() => {}
    }
    tracing::info!("stopping");
    told.send_replace(true);
    run.await?;
    tracing::info!("stopped");
    Ok(())
}

fn no_address(directory: &Directory) -> Failure {
    let reason = format!("{}: the node has no address", directory.root().display());
    Failure::usage(reason, "give --listen IP:PORT, where other nodes find it")
}

/// `holdfast data`: serves until SIGTERM or SIGINT, whether etcd is there or not.
pub(crate) async fn data(rt: Rt, options: DataArguments, printer: Printer) -> Result<(), Failure> {
    let directory = Directory::new(&options.dir)?;
    let config = Config::load(&directory)?;
    log_to_stderr(choice(options.log, config.log.as_deref(), "log", Level::Info)?);
    let mut stop = Stop::new()?;
    let access = EtcdAccess::load(&directory)?;
    let listen = options.listen.or(config.listen).or(access.listen).ok_or_else(|| no_address(&directory))?;
    let io = choice(options.io, config.io.as_deref(), "io", Io::Auto)?;
    let media = if options.media.is_empty() { config.media } else { options.media };
    let start = node::Options { dir: options.dir, media, listen, backend: io.backend() };
    let (identity, _) = node::load_identity(&directory)?;
    let data = DataNode::start(rt.clone(), start).await?;
    say(printer, &directory, "data", data.address());
    let keep = async {
        let mut membership = Membership::begin(&rt, &directory, identity, &access).await;
        loop {
            let (revoked, identity) =
                (membership.roster.borrow().revoked.clone(), membership.identity.borrow().clone());
            let told = revoked.map_or(Ok(()), |revoked| data.revoke(&revoked));
            if let Err(error) = told.and_then(|()| data.renew(&identity)) {
                tracing::warn!(%error, "certificates stay as they are");
            }
            if !membership.changed().await {
                return std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = keep => {}
        () = stop.wait() => {}
    }
    data.stop();
    tracing::info!("stopped");
    Ok(())
}
