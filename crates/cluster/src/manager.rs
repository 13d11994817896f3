//! What a manager decides: who gets a token, who joins with it, who gets the next certificate, who has to go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{Code, Error, Result, code};
use meta::{Compare, Op, Revision, Store, Txn};
use seam::Rt;
use trust::rustls::pki_types::CertificateDer;
use trust::{Authority, Fingerprint, Identity, Member, NewIdentity, Revoked, Role};
use units::{NodeId, SiteId};

use crate::access::{EtcdAccess, store_error};
use crate::birth::Birth;
use crate::members::{NODES_MAX, nodes, revocations};
use crate::records::{
    CERTIFICATES_MAX, Certificate, Entry, Node, REVOKED_MAX, Revocations, State, TOKENS, Token, Used,
};
use crate::text::{check_name, hex, node_id};
use crate::token::JoinToken;
use crate::users::Users;
use crate::wire::{Join, Joined};

/// How long a token can be used unless told otherwise.
pub const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// The longest life of a token.
pub const TOKEN_LIFE_MAX: Duration = Duration::from_secs(7 * 86_400);
/// How long a certificate holds. It is renewed at two thirds of that.
pub(crate) const CERTIFICATE_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// The longest life of a client's certificate: nothing renews it.
const CLIENT_LIFE_MAX: Duration = Duration::from_secs(3650 * 86_400);
/// Tokens that can be used, and used ones whose time is not over.
const TOKENS_MAX: usize = 1024;
/// Others may change the same records at the same moment.
const ATTEMPTS: usize = 8;

fn refused(code: &'static Code, reason: impl Into<String>) -> Error {
    Error::new(code, reason)
}

fn untrusted(error: &trust::TrustError) -> Error {
    refused(code::INVALID_REQUEST, format!("the certificate request: {error}"))
}

fn busy() -> Error {
    refused(code::BUSY, "others keep changing the same records")
}

/// Decides who belongs to the site. Several may be at work at once.
pub struct Manager {
    rt: Rt,
    store: Arc<dyn Store>,
    users: Arc<dyn Users>,
    authority: Authority,
    site: SiteId,
    /// What a node that joins is told of etcd.
    access: EtcdAccess,
    /// What opens the site's data.
    key: [u8; 32],
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Manager({})", self.site)
    }
}

impl Manager {
    /// With the site's authority, and the key that opens its data.
    pub fn new(
        rt: &Rt,
        store: Arc<dyn Store>,
        users: Arc<dyn Users>,
        authority: Authority,
        site: SiteId,
        access: EtcdAccess,
        key: [u8; 32],
    ) -> Self {
        Self { rt: rt.clone(), store, users, authority, site, access, key }
    }

    /// A token for one node in a role, good for `life`; nodes join with it at `manager`.
    ///
    /// # Errors
    /// `token_life`, `too_many_tokens`, `metadata_unavailable`.
    pub async fn new_token(&self, role: Role, manager: SocketAddr, life: Duration) -> Result<JoinToken> {
        if life.is_zero() || life > TOKEN_LIFE_MAX {
            let reason = format!("a token is good for 1s to 7d, not {} s", life.as_secs());
            return Err(refused(code::TOKEN_LIFE, reason));
        }
        self.forget_old_tokens().await?;
        let token = JoinToken::new(&*self.rt, manager, Fingerprint::of(self.authority.certificate()));
        let expires_ms = self.rt.wall_ms() + life.as_millis() as u64;
        let record = Token::new(&self.authority, token.secret(), role, expires_ms).encode()?;
        let key = Token::key(token.secret())?;
        for _ in 0..ATTEMPTS {
            let txn =
                Txn::new().when(Compare::absent(key.clone())).then(Op::put(key.clone(), record.clone()));
            match self.store.txn(txn).await {
                // There already: an attempt before, whose answer was lost.
                Ok(_) => return Ok(token),
                Err(error) if error.kind == meta::ErrorKind::Unknown => {}
                Err(error) => return Err(store_error(&error)),
            }
        }
        Err(busy())
    }

    async fn forget_old_tokens(&self) -> Result<()> {
        let listed = meta::list(&*self.store, TOKENS.all(), 2 * TOKENS_MAX).await;
        let (kvs, _) = listed.map_err(|error| store_error(&error))?;
        let now = self.rt.wall_ms();
        let mut left = kvs.len();
        for kv in kvs {
            // One that cannot be read lets nobody join.
            if Token::decode(&kv.value).is_ok_and(|token| now < token.expires_ms) {
                continue;
            }
            let unchanged = Compare::unchanged(kv.key.clone(), kv.mod_revision);
            let txn = Txn::new().when(unchanged).then(Op::delete(&kv.key));
            self.store.txn(txn).await.map_err(|error| store_error(&error))?;
            left -= 1;
        }
        if left >= TOKENS_MAX {
            let reason = format!("{left} tokens are out, the most there can be");
            return Err(refused(code::TOO_MANY_TOKENS, reason));
        }
        Ok(())
    }

    /// Takes a node in, when its token is good: once, and again for the same request.
    pub(crate) async fn join(&self, asked: &Join) -> Result<Joined> {
        check_name(&asked.name)?;
        let request = trust::sha256(&asked.request);
        for _ in 0..ATTEMPTS {
            let key = Token::key(&asked.secret)?;
            let found = self.store.get(&key).await.map_err(|error| store_error(&error))?;
            let denied = |reason: &str| Err(refused(code::TOKEN_REFUSED, reason));
            let Some(kv) = found.kv else { return denied("nobody gave that token out, or its time is over") };
            let token = Token::decode(&kv.value)?;
            if !token.is_genuine(&self.authority, &asked.secret) {
                return denied("no manager gave that token out");
            }
            if self.rt.wall_ms() >= token.expires_ms {
                return denied("the token's time is over");
            }
            match &token.used {
                Some(used) if used.request == request => {
                    let member = Member { site: self.site, role: token.role, node: used.node };
                    return self.joined(&member, &used.certificate).await;
                }
                Some(_) => return denied("the token was used, and lets one node join"),
                None => {}
            }
            let node = NodeId(self.random_id());
            let member = Member { site: self.site, role: token.role, node };
            let certificate = self.issue(&asked.request, &member, asked.address, CERTIFICATE_LIFE);
            let certificate = certificate.map_err(|error| untrusted(&error))?;
            let record = self.new_node(member, &asked.name, asked.address, &certificate)?;
            let used = Used { request, node, certificate: certificate.clone() };
            let with_token = (key, Token { used: Some(used), ..token.clone() }, kv.mod_revision);
            if self.add(&record, Some(with_token)).await? {
                tracing::info!(%node, name = record.name, role = token.role.as_str(), "a node has joined");
                return self.joined(&member, &certificate).await;
            }
        }
        Err(busy())
    }

    /// A certificate, with where the node is found.
    fn issue(
        &self,
        request: &[u8],
        member: &Member,
        address: Option<SocketAddr>,
        life: Duration,
    ) -> std::result::Result<CertificateDer<'static>, trust::TrustError> {
        let address = address.map(|address| address.ip()).filter(|ip| !ip.is_unspecified());
        self.authority.issue_at(&*self.rt, request, member, address.as_slice(), life)
    }

    /// Makes somebody a client, who opens disks from outside and is no node: its certificate, good for `life`, and its key.
    ///
    /// # Errors
    /// `invalid_name`, `node_name_taken`, `too_many_nodes`, `token_life`, `metadata_unavailable`.
    pub async fn new_client(&self, name: &str, life: Duration) -> Result<Identity> {
        check_name(name)?;
        if life.is_zero() || life > CLIENT_LIFE_MAX {
            let reason = format!("a client's certificate is good for 1s to 3650d, not {} s", life.as_secs());
            return Err(refused(code::TOKEN_LIFE, reason));
        }
        let new = NewIdentity::create().map_err(|error| untrusted(&error))?;
        let request = new.request().map_err(|error| untrusted(&error))?;
        let member = Member { site: self.site, role: Role::Client, node: NodeId(self.random_id()) };
        let certificate = self.issue(&request, &member, None, life).map_err(|error| untrusted(&error))?;
        let record = self.new_node(member, name, None, &certificate)?;
        for _ in 0..ATTEMPTS {
            let added = self.add(&record, None).await;
            // An attempt before, whose answer was lost.
            let is_there = self.node(name).await.is_ok_and(|node| node.id == member.node);
            if is_there || added? {
                let identity = new.complete(certificate, self.authority.certificate().clone());
                return identity.map_err(|error| untrusted(&error));
            }
        }
        Err(busy())
    }

    /// Makes a founding manager, which needs no token, a member; again at each of its starts.
    ///
    /// # Errors
    /// `node_name_taken`, `metadata_unavailable`.
    pub async fn enrol(
        &self,
        identity: &Identity,
        name: &str,
        address: SocketAddr,
        birth: Option<&Birth>,
    ) -> Result<()> {
        self.users.require(&identity.member()).await?;
        if let Some(birth) = birth {
            let key = Birth::key()?;
            let absent = Compare::absent(key.clone());
            // One that is there is this one.
            self.apply(Txn::new().when(absent).then(Op::put(key, birth.encode()?))).await?;
        }
        for _ in 0..ATTEMPTS {
            let known = nodes(&*self.store).await?;
            if known.iter().any(|node| node.id == identity.member().node) {
                return Ok(());
            }
            let record = self.new_node(identity.member(), name, Some(address), identity.certificate())?;
            if self.add(&record, None).await? {
                return Ok(());
            }
        }
        Err(busy())
    }

    fn new_node(
        &self,
        member: Member,
        name: &str,
        address: Option<SocketAddr>,
        certificate: &CertificateDer<'static>,
    ) -> Result<Node> {
        Ok(Node {
            id: member.node,
            role: member.role,
            name: name.to_owned(),
            address,
            state: State::Active,
            joined_ms: self.rt.wall_ms(),
            certificates: vec![of(certificate)?],
        })
    }

    /// Writes a new node's record; false when something changed meanwhile, or nobody knows.
    async fn add(&self, node: &Node, token: Option<(meta::Key, Token, Revision)>) -> Result<bool> {
        let known = nodes(&*self.store).await?;
        if let Some(other) = known.iter().find(|known| known.name == node.name) {
            let reason = format!("a {} node has the name {:?}", other.role.as_str(), node.name);
            return Err(refused(code::NODE_NAME_TAKEN, reason));
        }
        if known.len() >= NODES_MAX {
            let reason = format!("the site has {NODES_MAX} nodes, the most there can be");
            return Err(refused(code::TOO_MANY_NODES, reason));
        }
        let (key, name) = (Node::key(node.id)?, Node::name_key(&node.name)?);
        let mut txn = Txn::new()
            .when(Compare::absent(key.clone()))
            .when(Compare::absent(name.clone()))
            .then(Op::put(key, node.encode()?))
            .then(Op::put(name, hex(&node.id.0).into_bytes()));
        if let Some((key, token, at)) = token {
            txn = txn.when(Compare::unchanged(key.clone(), at)).then(Op::put(key, token.encode()?));
        }
        self.apply(txn).await
    }

    async fn apply(&self, txn: Txn) -> Result<bool> {
        match self.store.txn(txn).await {
            Ok(done) => Ok(done.succeeded),
            Err(error) if error.kind == meta::ErrorKind::Unknown => Ok(false),
            Err(error) => Err(store_error(&error)),
        }
    }

    async fn joined(&self, member: &Member, certificate: &CertificateDer<'static>) -> Result<Joined> {
        let key = Node::key(member.node)?;
        let found = self.store.get(&key).await.map_err(|error| store_error(&error))?;
        if found.kv.is_none() {
            let reason = "the node was removed from the site";
            return Err(refused(code::NODE_REMOVED, reason));
        }
        self.users.admit(member).await?;
        let revoked = revocations(&*self.store).await?.map(|(revoked, _)| revoked.list.to_vec());
        let holds_key = matches!(member.role, Role::Compute | Role::Manager);
        Ok(Joined {
            certificate: certificate.to_vec(),
            authority: self.authority.certificate().to_vec(),
            endpoints: self.access.endpoints.clone(),
            managers: self.access.managers.clone(),
            revoked,
            key: holds_key.then_some(self.key),
        })
    }

    /// The next certificate of a member, who asked under the certificate `shown`.
    pub(crate) async fn renew(
        &self,
        shown: &CertificateDer<'_>,
        request: &[u8],
    ) -> Result<CertificateDer<'static>> {
        let member = Member::of(shown).map_err(|error| untrusted(&error))?;
        let serial = trust::serial(shown).map_err(|error| untrusted(&error))?;
        for _ in 0..ATTEMPTS {
            let key = Node::key(member.node)?;
            let found = self.store.get(&key).await.map_err(|error| store_error(&error))?;
            let denied = |reason: &str| Err(refused(code::NODE_REMOVED, reason));
            let Some(kv) = found.kv else { return denied("the node is none of the site's any more") };
            let mut node = Node::decode(member.node, &kv.value)?;
            if revocations(&*self.store).await?.is_some_and(|(revoked, _)| revoked.has(&serial)) {
                return denied("the certificate was revoked");
            }
            let certificate = self.issue(request, &member, node.address, CERTIFICATE_LIFE);
            let certificate = certificate.map_err(|error| untrusted(&error))?;
            let now = self.rt.wall_ms();
            node.certificates.retain(|known| now < known.ends_ms);
            if node.certificates.len() >= CERTIFICATES_MAX {
                let reason = format!("{} has {CERTIFICATES_MAX} certificates that hold", node.name);
                return Err(refused(code::TOO_MANY_CERTIFICATES, reason));
            }
            node.certificates.push(of(&certificate)?);
            let unchanged = Compare::unchanged(key.clone(), kv.mod_revision);
            let txn = Txn::new().when(unchanged).then(Op::put(key, node.encode()?));
            if self.apply(txn).await? {
                tracing::info!(name = node.name, "a node has its next certificate");
                return Ok(certificate);
            }
        }
        Err(busy())
    }

    /// A node by its name or id.
    ///
    /// # Errors
    /// `node_not_found`, `metadata_unavailable`.
    pub async fn node(&self, name: &str) -> Result<Node> {
        let id = node_id(name);
        let found = nodes(&*self.store).await?.into_iter();
        let found = found.into_iter().find(|node| node.name == name || Some(node.id) == id);
        found.ok_or_else(|| {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
            refused(code::NODE_NOT_FOUND, format!("the site has no node {shown:?}"))
        })
    }

    /// A node is to be emptied, or to take part. Gives its record.
    ///
    /// # Errors
    /// `node_not_found`, `metadata_unavailable`; `node_needed` when no other compute node would serve.
    pub async fn set_state(&self, name: &str, state: State) -> Result<Node> {
        for _ in 0..ATTEMPTS {
            let known = nodes(&*self.store).await?;
            let node = self.node(name).await?;
            let serves = |other: &&Node| {
                other.role == Role::Compute && other.state == State::Active && other.id != node.id
            };
            if node.role == Role::Compute && state == State::Draining && !known.iter().any(|it| serves(&it)) {
                let reason = format!("{}: no other compute node would serve the site", node.name);
                return Err(refused(code::NODE_NEEDED, reason));
            }
            let key = Node::key(node.id)?;
            let found = self.store.get(&key).await.map_err(|error| store_error(&error))?;
            let Some(kv) = found.kv else { continue };
            let next = Node { state, ..Node::decode(node.id, &kv.value)? };
            let unchanged = Compare::unchanged(key.clone(), kv.mod_revision);
            if self.apply(Txn::new().when(unchanged).then(Op::put(key, next.encode()?))).await? {
                return Ok(next);
            }
        }
        Err(busy())
    }

    /// A node is none of the site's from here on: its certificates are revoked. Gives what its record was.
    ///
    /// # Errors
    /// `node_not_found`, `too_many_certificates`, `metadata_unavailable`.
    pub async fn remove(&self, name: &str) -> Result<Node> {
        let node = self.node(name).await?;
        for _ in 0..ATTEMPTS {
            let key = Node::key(node.id)?;
            let found = self.store.get(&key).await.map_err(|error| store_error(&error))?;
            // Gone by an attempt before.
            let Some(kv) = found.kv else {
                self.users.dismiss(node.id).await?;
                return Ok(node);
            };
            let node = Node::decode(node.id, &kv.value)?;
            let revoked = revocations(&*self.store).await?;
            let revoked_at = revoked.as_ref().map_or(Revision::NONE, |(_, at)| *at);
            let next = self.revoke(revoked.map(|(revoked, _)| revoked), &node)?;
            let (list, name) = (Revocations::key()?, Node::name_key(&node.name)?);
            let txn = Txn::new()
                .when(Compare::unchanged(key.clone(), kv.mod_revision))
                .when(match revoked_at {
                    Revision::NONE => Compare::absent(list.clone()),
                    at => Compare::unchanged(list.clone(), at),
                })
                .then(Op::delete(&key))
                .then(Op::delete(&name))
                .then(Op::put(list, next.encode()?));
            if self.apply(txn).await? {
                self.users.dismiss(node.id).await?;
                tracing::info!(node = %node.id, name = node.name, "a node was removed");
                return Ok(node);
            }
        }
        Err(busy())
    }

    /// A node of before belongs to the site, which forgot its nodes.
    ///
    /// # Errors
    /// `metadata_unavailable`.
    pub(crate) async fn readmit(&self, node: &Node) -> Result<()> {
        self.users.admit(&Member { site: self.site, role: node.role, node: node.id }).await
    }

    /// Lets in who has a record, and out who has none: a join or a removal may have been cut off half-way.
    ///
    /// # Errors
    /// `metadata_unavailable`.
    pub async fn settle_users(&self) -> Result<()> {
        // Records come before users, and go before them.
        let before = nodes(&*self.store).await?;
        let member = |node: &Node| Member { site: self.site, role: node.role, node: node.id };
        let known: Vec<Member> = before.iter().map(member).collect();
        let differing = self.users.differ(&known).await?;
        let is_there = async |node: NodeId| -> Result<bool> {
            let found = self.store.get(&Node::key(node)?).await.map_err(|error| store_error(&error))?;
            Ok(found.kv.is_some())
        };
        for node in differing.left_over {
            if !is_there(node).await? {
                self.users.dismiss(node).await?;
                tracing::info!(%node, "a removed node is out of the metadata store");
            }
        }
        for member in differing.missing {
            if !is_there(member.node).await? {
                continue;
            }
            self.users.admit(&member).await?;
            // It may have been removed meanwhile.
            if !is_there(member.node).await? {
                self.users.dismiss(member.node).await?;
            }
        }
        Ok(())
    }

    /// The next list, with all certificates of a node.
    fn revoke(&self, known: Option<Revocations>, node: &Node) -> Result<Revocations> {
        let now = self.rt.wall_ms();
        let (number, mut entries) = known.map_or((0, Vec::new()), |known| (known.number, known.entries));
        entries.retain(|entry| now < entry.ends_ms);
        entries.extend(node.certificates.iter().filter(|known| now < known.ends_ms).map(|known| Entry {
            serial: known.serial.clone(),
            at_ms: now,
            ends_ms: known.ends_ms,
        }));
        if entries.len() > REVOKED_MAX {
            let reason = format!("more than {REVOKED_MAX} revoked certificates have not ended");
            return Err(refused(code::TOO_MANY_CERTIFICATES, reason));
        }
        let listed: Vec<Revoked> = entries
            .iter()
            .map(|entry| Revoked { serial: entry.serial.clone(), at_ms: entry.at_ms })
            .collect();
        let list = self
            .authority
            .revoke(&*self.rt, number + 1, &listed)
            .map_err(|error| refused(code::INTERNAL, format!("the list of revoked certificates: {error}")))?;
        Ok(Revocations { number: number + 1, entries, list })
    }

    fn random_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        self.rt.fill_random(&mut id);
        id
    }
}

fn of(certificate: &CertificateDer<'static>) -> Result<Certificate> {
    let serial = trust::serial(certificate).map_err(|error| untrusted(&error))?;
    let ends_ms = trust::ends_ms(certificate).map_err(|error| untrusted(&error))?;
    Ok(Certificate { serial, ends_ms })
}
