use super::*;

const FACTS: Facts = Facts { size: 1 << 40, read_only: false, zeroes_are_fast: true };
const TERMS: Terms = Terms { structured: true, allocation: true, contexts: false };

fn request(command: u16, flags: u16, offset: u64, length: u32) -> Request {
    Request { flags, command, cookie: 7, offset, length }
}

fn error(command: u16, flags: u16, offset: u64, length: u32) -> u32 {
    check(&request(command, flags, offset, length), FACTS, TERMS).map_or_else(|refusal| refusal.error, |_| 0)
}

#[test]
fn flags_belong_to_their_commands() {
    let valid = [
        (cmd::READ, cmd_flag::FUA | cmd_flag::DF),
        (cmd::WRITE, cmd_flag::FUA),
        (cmd::TRIM, cmd_flag::FUA),
        (cmd::CACHE, cmd_flag::FUA),
        (cmd::WRITE_ZEROES, cmd_flag::FUA | cmd_flag::NO_HOLE | cmd_flag::FAST_ZERO),
        (cmd::BLOCK_STATUS, cmd_flag::FUA | cmd_flag::REQ_ONE),
    ];
    for (command, flags) in valid {
        for bit in (0..16).map(|bit| 1 << bit) {
            let expected = if flags & bit != 0 { 0 } else { errno::EINVAL };
            assert_eq!(error(command, bit, 0, 512), expected, "command {command}, flag {bit:#x}");
        }
    }
    let slow = Facts { zeroes_are_fast: false, ..FACTS };
    assert!(check(&request(cmd::WRITE_ZEROES, cmd_flag::FAST_ZERO, 0, 1), slow, TERMS).is_err());
    let simple = Terms::default();
    assert!(check(&request(cmd::READ, cmd_flag::DF, 0, 1), FACTS, simple).is_err());
    assert!(check(&request(cmd::BLOCK_STATUS, 0, 0, 1), FACTS, simple).is_err());
}

#[test]
fn ranges_are_checked_without_overflow() {
    for command in [cmd::READ, cmd::WRITE, cmd::TRIM, cmd::CACHE, cmd::WRITE_ZEROES, cmd::BLOCK_STATUS] {
        let past =
            if matches!(command, cmd::WRITE | cmd::WRITE_ZEROES) { errno::ENOSPC } else { errno::EINVAL };
        assert_eq!(error(command, 0, FACTS.size - 1, 1), 0);
        assert_eq!(error(command, 0, FACTS.size - 1, 2), past);
        assert_eq!(error(command, 0, FACTS.size, 1), past);
        assert_eq!(error(command, 0, u64::MAX, 1), past);
        assert_eq!(error(command, 0, u64::MAX - 3, 4096), past);
        assert_eq!(error(command, 0, 0, 0), errno::EINVAL);
    }
    assert_eq!(error(cmd::READ, 0, 0, MAX_REQUEST), 0);
    assert_eq!(error(cmd::READ, 0, 0, MAX_REQUEST + 1), errno::EINVAL);
    assert_eq!(error(cmd::WRITE, 0, 0, MAX_REQUEST + 1), errno::EINVAL);
    assert_eq!(error(cmd::TRIM, 0, 0, u32::MAX), 0);
    assert_eq!(error(cmd::FLUSH, 0, 0, 0), 0);
    assert_eq!(error(cmd::FLUSH, 0, 1, 0), errno::EINVAL);
    assert_eq!(error(99, 0, 0, 1), errno::EINVAL);
}

fn status_of(extents: &[Extent], length: u32, limit: usize) -> Vec<(u32, u32)> {
    status(extents.iter().map(|extent| (extent.length, state_of(extent))), length, limit)
}

#[test]
fn extents_are_joined_and_cut() {
    let data = |length| Extent { length, hole: false, zero: false };
    let hole = |length| Extent { length, hole: true, zero: true };
    assert_eq!(status_of(&[data(10), data(5), hole(100)], 50, 9), [(15, 0), (35, 3)]);
    assert_eq!(status_of(&[data(10), hole(5), data(1)], 50, 2), [(10, 0), (5, 3)]);
    assert_eq!(status_of(&[hole(u64::MAX)], u32::MAX, 1), [(u32::MAX, 3)]);
    assert_eq!(status_of(&[data(0), hole(7)], 7, 1), [(7, 3)]);
    assert_eq!(status_of(&[], 7, 1), []);
}

/// What the client would put together, and the pieces as (is a hole, length).
fn assemble(answer: Answer, expected_offset: u64) -> (Vec<u8>, Vec<(bool, usize)>) {
    let Answer::Chunks { offset, first, rest } = answer else { panic!("not chunks") };
    assert_eq!(offset, expected_offset);
    let mut bytes = Vec::new();
    let mut shape = Vec::new();
    for piece in std::iter::once(first).chain(rest) {
        match piece {
            Piece::Data(data) => {
                shape.push((false, data.len()));
                bytes.extend_from_slice(&data);
            }
            Piece::Zeros(length) => {
                shape.push((true, length as usize));
                bytes.resize(bytes.len() + length as usize, 0);
            }
        }
    }
    (bytes, shape)
}

#[test]
fn zeros_go_out_as_holes_and_nothing_else_does() {
    let mut data = vec![0; 1 << 20];
    data[..101].fill(1);
    data[500_000] = 2;
    for (offset, length) in
        [(0, 1 << 20), (777, 600_001), (4095, 4097), (12_288, 64 << 10), (600_000, 300_000)]
    {
        let part = Bytes::copy_from_slice(&data[offset..offset + length]);
        for one_chunk in [false, true] {
            let (bytes, shape) = assemble(pieces(offset as u64, part.clone(), one_chunk), offset as u64);
            assert!(bytes == part, "contents differ at {offset}, {length}");
            assert!(!one_chunk || shape.len() == 1);
        }
    }
    let (_, shape) = assemble(pieces(0, data.clone().into(), false), 0);
    assert_eq!(
        shape,
        [(false, 4096), (true, 122 * 4096 - 4096), (false, 4096), (true, (1 << 20) - 123 * 4096)]
    );
    let (_, shape) = assemble(pieces(100, data[100..=500_000].to_vec().into(), false), 100);
    assert_eq!(shape, [(false, 3996), (true, 122 * 4096 - 4096), (false, 500_001 - 122 * 4096)]);
    let (_, shape) = assemble(pieces(3, vec![0; 5].into(), true), 3);
    assert_eq!(shape, [(true, 5)]);
}
