//! What nodes may do in the metadata store: users of etcd, named as their certificates are, one for each node.
//!
//! | role | reads | changes |
//! |---|---|---|
//! | data | nodes, revoked certificates | nothing |
//! | compute | those, what the site begins with | who serves, the claim, the list of media |
//! | manager | everything | everything, users too |
//! | client | nothing | nothing |

use api::Result;
use etcd::{Etcd, Right, UserRole};
use meta::{KeyRange, Site, Table};
use seam::BoxFuture;
use trust::{Member, Role};
use units::NodeId;

use crate::access::{Meta, store_error};
use crate::birth;
use crate::records::{NAMES, NODES, REVOKED};
use crate::text::hex;

/// The table of who serves: a compute node's.
pub const SERVING: Table<Site> = Table::new("serving");
/// The table of the site's media: a compute node's.
pub const MEDIA: Table<Site> = Table::new("media");
/// The table of who owns the site: a compute node's.
pub const CLAIM: Table<Site> = Table::new("claim");

const DATA: &str = "data";
const COMPUTE: &str = "compute";
const ROLES: [&str; 2] = [DATA, COMPUTE];

/// Lets nodes into the metadata store, and out of it again.
pub trait Users: Send + Sync {
    /// From here on the store asks who somebody is; `manager` may do everything. The same again does no harm.
    fn require<'a>(&'a self, manager: &'a Member) -> BoxFuture<'a, Result<()>>;

    /// A node may do what its role may. The same again does no harm.
    fn admit<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<()>>;

    /// A node may do nothing any more.
    fn dismiss(&self, node: NodeId) -> BoxFuture<'_, Result<()>>;

    /// The nodes that may do something, managers aside, of those that are `unknown` to their caller; and which of the `known`
    /// ones may not.
    fn differ<'a>(&'a self, known: &'a [Member]) -> BoxFuture<'a, Result<Differing>>;
}

/// How users and records of nodes differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differing {
    /// Nodes with a record that are no users.
    pub missing: Vec<Member>,
    /// Users that have no record.
    pub left_over: Vec<NodeId>,
}

fn role_of(member: &Member) -> Option<UserRole<'static>> {
    match member.role {
        Role::Data => Some(UserRole::Of(DATA)),
        Role::Compute => Some(UserRole::Of(COMPUTE)),
        Role::Manager => Some(UserRole::Administrator),
        Role::Client => None,
    }
}

fn grants(role: &str) -> Vec<(KeyRange, Right)> {
    let read = [NODES, NAMES, REVOKED].map(|table| (table.all(), Right::Read));
    let mut grants = read.to_vec();
    if role == COMPUTE {
        grants.push((birth::TABLE.all(), Right::Read));
        grants.extend([SERVING, MEDIA, CLAIM].map(|table| (table.all(), Right::Write)));
    }
    grants
}

async fn differ(etcd: &Etcd, known: &[Member]) -> meta::Result<Differing> {
    let users = etcd.users().await?;
    let name = |member: &Member| hex(&member.node.0);
    let is_missing = |member: &&Member| role_of(member).is_some() && !users.contains(&name(member));
    let missing = known.iter().filter(is_missing).copied().collect();
    let mut left_over = Vec::new();
    for user in users {
        let Some(node) = crate::text::node_id(&user) else { continue };
        let is_known = known.iter().any(|member| member.node == node);
        if !is_known && etcd.has_role(&user, &ROLES).await? {
            left_over.push(node);
        }
    }
    Ok(Differing { missing, left_over })
}

impl Users for Meta {
    fn require<'a>(&'a self, manager: &'a Member) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let etcd = self.etcd();
            let made = async {
                // The first to come is let in as whoever it is; behind that it must be a user.
                etcd.require_users(&hex(&manager.node.0)).await?;
                for role in ROLES {
                    etcd.set_role(role, &grants(role)).await?;
                }
                Ok(())
            };
            made.await.map_err(|error| store_error(&error))
        })
    }

    fn admit<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let user = hex(&member.node.0);
            let Some(role) = role_of(member) else { return Ok(()) };
            let made = self.etcd().set_user(&user, role).await;
            made.map_err(|error| store_error(&error))
        })
    }

    fn dismiss(&self, node: NodeId) -> BoxFuture<'_, Result<()>> {
        Box::pin(
            async move { self.etcd().remove_user(&hex(&node.0)).await.map_err(|error| store_error(&error)) },
        )
    }

    fn differ<'a>(&'a self, known: &'a [Member]) -> BoxFuture<'a, Result<Differing>> {
        Box::pin(async move { differ(&self.etcd(), known).await.map_err(|error| store_error(&error)) })
    }
}
