use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    encode(&mut out);
    hex(&out)
}

#[test]
fn golden_bytes_of_the_handshake() {
    assert_eq!(encoded(encode_greeting), "4e42444d4147494349484156454f50540003");
    assert_eq!(
        encoded(|out| encode_option_reply(out, opt::LIST, rep::ERR_UNSUP, "no")),
        "0003e889045565a90000000380000001000000026e6f"
    );
    assert_eq!(
        encoded(|out| encode_option_server(out, opt::LIST, "ab", "c")),
        "0003e889045565a900000003000000020000000700000002616263"
    );
    assert_eq!(
        encoded(|out| encode_info_export(out, opt::GO, 0x0102_0304, 0x0d6d)),
        "0003e889045565a90000000700000003\
         0000000c000000000000010203040d6d"
    );
    assert_eq!(
        encoded(|out| encode_info_block_size(out, opt::INFO)),
        "0003e889045565a900000006000000030000000e0003000000010000100002000000"
    );
    assert_eq!(
        encoded(|out| encode_info_text(out, opt::INFO, info::NAME, "x")),
        "0003e889045565a900000006000000030000000300\
         0178"
    );
    assert_eq!(
        encoded(|out| encode_meta_context(out, opt::SET_META_CONTEXT, 1, BASE_ALLOCATION)),
        "0003e889045565a90000000a000000040000001300000001626173653a616c6c6f636174696f6e"
    );
    assert_eq!(encoded(|out| encode_export_name_reply(out, 512, 1, false)), "00000000000002000001");
    assert_eq!(encoded(|out| encode_export_name_reply(out, 512, 1, true)).len(), 2 * 134);
}

#[test]
fn golden_bytes_of_the_transmission() {
    let request = "25609513000100010102030405060708000000000000100000000200";
    let bytes: Vec<u8> =
        (0..28).map(|at| u8::from_str_radix(&request[at * 2..at * 2 + 2], 16).unwrap()).collect();
    assert_eq!(
        Request::decode(&bytes),
        Some(Request { flags: 1, command: 1, cookie: 0x0102_0304_0506_0708, offset: 4096, length: 512 })
    );
    assert_eq!(Request::decode(&bytes[..27]), None);
    assert_eq!(encoded(|out| encode_simple_reply(out, 22, 9)), "67446698000000160000000000000009");
    let chunk = Chunk { cookie: 9, last: true };
    assert_eq!(
        encoded(|out| encode_data_head(out, Chunk { last: false, ..chunk }, 4096, 512)),
        "668e33ef000000010000000000000009000002080000000000001000"
    );
    assert_eq!(
        encoded(|out| encode_hole(out, chunk, 4096, 512)),
        "668e33ef0001000200000000000000090000000c000000000000100000000200"
    );
    assert_eq!(
        encoded(|out| encode_block_status(out, chunk, ALLOCATION_CONTEXT, &[(512, 3), (1, 0)])),
        "668e33ef00010005000000000000000900000014000000010000020000000003\
         0000000100000000"
    );
    assert_eq!(
        encoded(|out| encode_error(out, chunk, 5, "io")),
        "668e33ef000180010000000000000009000000080000000500\
         02696f"
    );
}

#[test]
fn option_payloads_are_checked() {
    let info = |name: &[u8], count: u16, kinds: &[u8]| {
        let mut payload = u32::try_from(name.len()).unwrap().to_be_bytes().to_vec();
        payload.extend_from_slice(name);
        payload.extend_from_slice(&count.to_be_bytes());
        payload.extend_from_slice(kinds);
        payload
    };
    let good = info(b"disk", 2, &[0, 3, 0, 1]);
    let decoded = InfoRequest::decode(&good).unwrap();
    assert_eq!(decoded.name, "disk");
    assert!(
        decoded.wants(info::BLOCK_SIZE) && decoded.wants(info::NAME) && !decoded.wants(info::DESCRIPTION)
    );
    for cut in 0..good.len() {
        assert!(InfoRequest::decode(&good[..cut]).is_err());
    }
    assert_eq!(InfoRequest::decode(&info(b"disk", 1, &[0, 3, 0])), Err(option::BadOption::Malformed));
    assert_eq!(InfoRequest::decode(&info(b"\xff", 0, &[])), Err(option::BadOption::Malformed));
    assert!(InfoRequest::decode(&info(&[b'a'; 255], 0, &[])).is_ok());
    assert_eq!(InfoRequest::decode(&info(&[b'a'; 256], 0, &[])), Err(option::BadOption::NameTooLong));

    let query = b"\0\0\0\x01d\0\0\0\x02\0\0\0\x05base:\0\0\0\x00";
    let decoded = MetaQuery::decode(query).unwrap();
    assert!(decoded.asks(BASE_NAMESPACE) && !decoded.asks(BASE_ALLOCATION) && !decoded.empty);
    for cut in 0..query.len() {
        assert!(MetaQuery::decode(&query[..cut]).is_err());
    }
    assert!(MetaQuery::decode(b"\0\0\0\x01d\xff\xff\xff\xff").is_err());
    assert!(MetaQuery::decode(b"\0\0\0\x01d\0\0\0\0x").is_err());
}

#[test]
fn client_flags_and_option_heads() {
    assert_eq!(decode_client_flags(&[0, 0, 0, 3]), Some(3));
    assert_eq!(decode_client_flags(&[0, 0, 0, 4]), None);
    assert_eq!(
        decode_option_header(b"IHAVEOPT\0\0\0\x07\0\0\x10\0"),
        Some(OptionHeader { option: 7, length: 4096 })
    );
    assert_eq!(decode_option_header(b"IHAVEOPX\0\0\0\x07\0\0\x10\0"), None);
    assert_eq!(decode_option_header(b"IHAVEOPT"), None);
}
