use super::*;

/// What etcd 3.4 to 3.6 says, and what a caller may conclude.
#[test]
fn only_what_cannot_have_happened_is_asked_again() {
    let kind = |code, said: &str| match Fault::from(Status::new(code, said)) {
        Fault::Refused(error) => format!("{:?}", error.kind),
        Fault::Away(_) => "away".to_owned(),
        Fault::Lost(_) => "lost".to_owned(),
        Fault::TooLong => "too long".to_owned(),
        Fault::Exists => "exists".to_owned(),
    };
    let cases = [
        (Code::Unavailable, "etcdserver: no leader", "away"),
        (Code::ResourceExhausted, "etcdserver: too many requests", "away"),
        (Code::Unavailable, "etcdserver: leader changed", "lost"),
        (Code::Unavailable, "etcdserver: request timed out", "lost"),
        (Code::Unavailable, "etcdserver: request timed out, possibly due to previous leader failure", "lost"),
        (Code::Unavailable, "etcdserver: server stopped", "lost"),
        (Code::Unknown, "raft proposal dropped", "lost"),
        (Code::Unavailable, "error reading a body from connection", "lost"),
        (Code::Cancelled, "Timeout expired", "lost"),
        (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", "Full"),
        (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", "Compacted"),
        (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision", "Invalid"),
        (
            Code::OutOfRange,
            "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes",
            "too long",
        ),
        (Code::NotFound, "etcdserver: requested lease not found", "LeaseNotFound"),
        (Code::FailedPrecondition, "etcdserver: lease already exists", "exists"),
        (Code::InvalidArgument, "etcdserver: too many operations in txn request", "Invalid"),
        (Code::InvalidArgument, "etcdserver: request is too large", "Invalid"),
        (Code::PermissionDenied, "etcdserver: permission denied", "Unavailable"),
        (Code::DataLoss, "etcdserver: corrupt cluster", "Corrupt"),
    ];
    for (code, said, expected) in cases {
        assert_eq!(kind(code, said), expected, "{said}");
    }
}

#[test]
fn a_member_that_was_never_reached_is_away() {
    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    let status = Status::from_error(Box::new(tonic::ConnectError(Box::new(refused))));
    let Fault::Away(why) = Fault::from(status) else { panic!("nothing was sent") };
    assert!(why.contains("refused"), "{why}");
}
