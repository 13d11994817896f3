//! Who may do what: etcd's own users, whose names are the common names of certificates.
//!
//! A user has no password: only a certificate with its name opens its way in. Roles are named with the site's prefix, since
//! several sites may share one etcd.

use std::collections::BTreeSet;

use etcd_client::{AuthClient, Permission, UserAddOptions};
use meta::{Error, ErrorKind, KeyRange, Result};

use crate::Etcd;
use crate::fault::Fault;
use crate::members::Effect;

/// etcd's own administrators: its role, and the user that must exist. Nobody has a certificate with that name.
const ROOT: &str = "root";
/// What etcd says of what is there already, or is not there any more.
const DONE: [&str; 4] = [
    "etcdserver: role name already exists",
    "etcdserver: user name already exists",
    "etcdserver: user name not found",
    "etcdserver: role is not granted to the user",
];

/// What a user may do with keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Read them.
    Read,
    /// Read and change them.
    Write,
}

/// What a user is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserRole<'a> {
    /// One that may do anything, users and roles included.
    Administrator,
    /// One with the role of that name.
    Of(&'a str),
}

impl Etcd {
    /// From here on etcd asks who somebody is, and serves users alone. `administrator` is one; who asks must be it, or the
    /// first ever to ask. The same again does no harm.
    ///
    /// # Errors
    /// `Unavailable` when no member answers, or it refuses.
    pub async fn require_users(&self, administrator: &str) -> Result<()> {
        self.admin("etcd's root role", |mut auth| async move { auth.role_add(ROOT).await.map(drop) }).await?;
        for user in [ROOT, administrator] {
            self.set_user(user, UserRole::Administrator).await?;
        }
        self.admin("asking for users", |mut auth| async move { auth.auth_enable().await.map(drop) }).await?;
        Ok(())
    }

    /// Makes a role that may do so much with the site's keys. What it might before it still may.
    ///
    /// # Errors
    /// As [`Etcd::require_users`]; `Invalid` for a range without keys.
    pub async fn set_role(&self, role: &str, grants: &[(KeyRange, Right)]) -> Result<()> {
        let role = self.role_name(role);
        let name = &role;
        self.admin("a role", |mut auth| {
            let name = name.clone();
            async move { auth.role_add(name).await.map(drop) }
        })
        .await?;
        for (range, right) in grants {
            let span = self.names.span(range).ok_or_else(|| Error::invalid("a range without keys"))?;
            let permission = match right {
                Right::Read => Permission::read(span.start),
                Right::Write => Permission::read_write(span.start),
            };
            let permission = &permission.with_range_end(span.end);
            self.admin("a role's rights", |mut auth| {
                let (name, permission) = (name.clone(), permission.clone());
                async move { auth.role_grant_permission(name, permission).await.map(drop) }
            })
            .await?;
        }
        Ok(())
    }

    /// Makes a user of a role. The same again does no harm.
    ///
    /// # Errors
    /// As [`Etcd::require_users`].
    pub async fn set_user(&self, user: &str, role: UserRole<'_>) -> Result<()> {
        let role = match role {
            UserRole::Administrator => ROOT.to_owned(),
            UserRole::Of(role) => self.role_name(role),
        };
        self.admin("a user", |mut auth| async move {
            let by_certificate = UserAddOptions::new().with_no_pwd();
            auth.user_add(user, "", Some(by_certificate)).await.map(drop)
        })
        .await?;
        let role = &role;
        self.admin("a user's role", |mut auth| {
            let role = role.clone();
            async move { auth.user_grant_role(user, role).await.map(drop) }
        })
        .await?;
        Ok(())
    }

    /// A user is none any more. Requests under its name are refused from then on; what it watches it goes on watching.
    ///
    /// # Errors
    /// As [`Etcd::require_users`].
    pub async fn remove_user(&self, user: &str) -> Result<()> {
        self.admin("a user's end", |mut auth| async move { auth.user_delete(user).await.map(drop) }).await?;
        Ok(())
    }

    /// The names of all users, those of other sites too.
    ///
    /// # Errors
    /// As [`Etcd::require_users`].
    pub async fn users(&self) -> Result<BTreeSet<String>> {
        let listed = self.admin("the users", |mut auth| async move { auth.user_list().await }).await?;
        Ok(listed.map(|listed| listed.users().iter().cloned().collect()).unwrap_or_default())
    }

    /// Whether a user has one of these roles of the site.
    ///
    /// # Errors
    /// As [`Etcd::require_users`].
    pub async fn has_role(&self, user: &str, roles: &[&str]) -> Result<bool> {
        let got = self.admin("a user", |mut auth| async move { auth.user_get(user).await }).await?;
        let ours: Vec<String> = roles.iter().map(|role| self.role_name(role)).collect();
        Ok(got.is_some_and(|got| got.roles().iter().any(|role| ours.contains(role))))
    }

    fn role_name(&self, role: &str) -> String {
        format!("{}{role}", self.names.prefix())
    }

    /// Asks as an administrator. `None` when it was so already.
    async fn admin<T, F>(&self, what: &str, ask: impl Fn(AuthClient) -> F) -> Result<Option<T>>
    where
        F: Future<Output = std::result::Result<T, etcd_client::Error>>,
    {
        let ask = &ask;
        let answered = self.members.ask(what, Effect::Same, |member, _| async move {
            match ask(member.client().auth_client()).await {
                Ok(answer) => Ok(Some(answer)),
                Err(etcd_client::Error::GRpcStatus(status)) if DONE.contains(&status.message()) => Ok(None),
                Err(etcd_client::Error::GRpcStatus(status))
                    if status.code() == tonic::Code::FailedPrecondition =>
                {
                    Err(Fault::refused(ErrorKind::Unavailable, status.message()))
                }
                Err(error) => Err(error.into()),
            }
        });
        Ok(answered.await?)
    }
}
