//! Goal: every decoder of this room answers any input with a value or an error: sound records and messages, mutated by
//! seed.

use std::sync::Arc;

use seam::testing::replay;
use seam::{Rt, TokioRuntime};
use trust::rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use trust::{Fingerprint, Role};
use units::NodeId;

use crate::access::EtcdAccess;
use crate::fuzz::fuzz_body;
use crate::records::{Certificate, Entry, Node, Revocations, State, Token, Used};
use crate::token::JoinToken;
use crate::wire::{Join, Joined, Renew, Renewed};

const MUTATIONS: u64 = 4000;

#[tokio::test]
async fn damaged_input() {
    let rt: Rt = Arc::new(TokioRuntime::new(tokio::runtime::Handle::current()));
    let certificates = vec![Certificate { serial: vec![1, 2, 3], ends_ms: 5 }];
    let node = Node {
        id: NodeId([1; 16]),
        role: Role::Data,
        name: "d1".to_owned(),
        address: "10.0.0.7:7420".parse().ok(),
        state: State::Draining,
        joined_ms: 77,
        certificates,
    };
    let used =
        Used { request: [3; 32], node: NodeId([4; 16]), certificate: CertificateDer::from(vec![9; 40]) };
    let token = Token { role: Role::Compute, expires_ms: 9, code: [8; 32], used: Some(used) };
    let entries = vec![Entry { serial: vec![7; 16], at_ms: 3, ends_ms: 4 }];
    let revoked = Revocations { number: 3, entries, list: CertificateRevocationListDer::from(vec![8; 60]) };
    let access =
        EtcdAccess::new(vec!["https://10.0.0.1:2379".to_owned()], vec!["10.0.0.1:7400".parse().unwrap()]);
    let join = Join { secret: [1; 16], name: "d1".to_owned(), address: None, request: vec![5; 90] };
    let joined = Joined {
        certificate: vec![1; 50],
        authority: vec![2; 50],
        endpoints: vec!["https://10.0.0.1:2379".to_owned()],
        managers: Vec::new(),
        revoked: Some(vec![3; 50]),
        key: Some([4; 32]),
    };
    let text = JoinToken::new(&*rt, "[2001:db8::1]:7400".parse().unwrap(), Fingerprint([6; 32]));
    assert_eq!(JoinToken::parse(&text.to_text()).unwrap(), text);
    assert_eq!(Node::decode(node.id, &node.encode().unwrap()).unwrap(), node);
    assert_eq!(Token::decode(&token.encode().unwrap()).unwrap(), token);
    assert_eq!(Revocations::decode(&revoked.encode().unwrap()).unwrap(), revoked);
    assert!(Join::decode(&join.encode().unwrap()).unwrap() == join);
    assert!(Joined::decode(&joined.encode().unwrap()).unwrap() == joined);
    let corpus = [
        node.encode().unwrap(),
        token.encode().unwrap(),
        revoked.encode().unwrap(),
        serde_json::to_vec(&access.unwrap()).unwrap(),
        join.encode().unwrap(),
        joined.encode().unwrap(),
        Renew(vec![5; 90]).encode().unwrap(),
        Renewed(vec![6; 90]).encode().unwrap(),
        text.to_text().into_bytes(),
    ];
    replay(&corpus, MUTATIONS, fuzz_body);
}
