//! Goal: what a site of many nodes keeps of its members, and what a token says, is stored as it was: what is
//! written here is read, and written again to the byte.

use seal::{Kek, KeyRing, RecoveryKey, WrappedKeys};
use units::NodeId;

use crate::access::EtcdAccess;
use crate::birth::Birth;
use crate::catalogue::Catalogue;
use crate::records::{Node, Revocations, Token};
use crate::text::hex;
use crate::token::JoinToken;

#[track_caller]
fn stays(text: &str, again: impl FnOnce(&[u8]) -> api::Result<Vec<u8>>) {
    let again = again(text.as_bytes()).expect("it is sound");
    assert_eq!(String::from_utf8(again).expect("text"), text);
}

#[test]
fn records_are_stored_as_they_were() {
    let node = |bytes: &[u8]| Node::decode(NodeId([1; 16]), bytes)?.encode();
    stays(
        r#"{"version":1,"role":"data","name":"d1","address":"10.0.0.7:7420","state":"draining","joined_ms":77,"certificates":[{"serial":"010203","ends_ms":5}]}"#,
        node,
    );
    for (role, state) in [("compute", "active"), ("manager", "active")] {
        let (head, tail) = (r#""version":1,"role""#, r#""joined_ms":1,"certificates":[]"#);
        stays(&format!(r#"{{{head}:"{role}","name":"c1","state":"{state}",{tail}}}"#), node);
    }
    let code = "08".repeat(32);
    let token = |bytes: &[u8]| Token::decode(bytes)?.encode();
    stays(&format!(r#"{{"version":1,"role":"compute","expires_ms":9,"code":"{code}"}}"#), token);
    let (request, node, certificate) = ("03".repeat(32), "04".repeat(16), "09".repeat(40));
    let used = format!(r#"{{"request":"{request}","node":"{node}","certificate":"{certificate}"}}"#);
    stays(&format!(r#"{{"version":1,"role":"data","expires_ms":9,"code":"{code}","used":{used}}}"#), token);
    stays(
        r#"{"version":1,"number":3,"entries":[{"serial":"0707","at_ms":3,"ends_ms":4}],"list":"0808"}"#,
        |bytes| Revocations::decode(bytes)?.encode(),
    );
    let keys = WrappedKeys::by_key_file(
        &KeyRing::for_tests(3),
        &Kek::from_bytes([4; 32]),
        &RecoveryKey::from_bytes([5; 32]),
        &[6; 40],
    );
    stays(&format!(r#"{{"version":1,"data_nodes":3,"keys":"{}"}}"#, hex(&keys.encode())), |bytes| {
        Birth::decode(bytes)?.encode()
    });
    let key = hex(Birth::key().expect("a key").as_bytes());
    stays(&format!(r#"{{"version":1,"taken_ms":5,"entries":[["{key}","7b7d"]]}}"#), |bytes| {
        Catalogue::decode(bytes)?.encode()
    });
    stays(
        r#"{"version":1,"endpoints":["https://10.0.0.1:2379"],"managers":["10.0.0.1:7400"],"listen":"10.0.0.7:7420"}"#,
        |bytes| Ok(serde_json::to_vec(&EtcdAccess::decode(bytes)?).expect("encodes")),
    );
}

/// A token that was given out is read by every later program.
#[test]
fn a_token_reads_as_it_was() {
    let said = format!("01{}{}{}", "06".repeat(32), "02".repeat(16), hex(b"10.0.0.1:7400"));
    let text = format!("hfjoin-{said}dcf91103");
    let token = JoinToken::parse(&text).expect("a sound token");
    assert_eq!((token.manager.to_string(), token.authority.0), ("10.0.0.1:7400".to_owned(), [6; 32]));
    assert_eq!((token.secret(), token.to_text()), (&[2; 16], text));
}
