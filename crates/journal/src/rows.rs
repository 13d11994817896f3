//! Rows in a start record: each medium once, and rows that name media by their place in that list.
//!
//! ```text
//!  media: list of 16 bytes
//!  rows: list of class u8 | row | version | members: list of places | moves: none, or a list of index u8, place
//! ```
//! A medium's id in each row would make the layout of a large site longer than a start record may be.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use units::MediumId;

use crate::Row;

#[derive(Serialize, Deserialize)]
struct Packed {
    media: Vec<MediumId>,
    rows: Vec<PackedRow>,
}

#[derive(Serialize, Deserialize)]
struct PackedRow {
    class: u8,
    row: u16,
    version: u32,
    members: Vec<u16>,
    /// While fragments move: where the target differs.
    moves: Option<Vec<(u8, u16)>>,
}

pub(crate) fn serialize<S: Serializer>(rows: &[Row], serializer: S) -> Result<S::Ok, S::Error> {
    let mut media: Vec<MediumId> =
        rows.iter().flat_map(|row| row.members.iter().chain(&row.target)).copied().collect();
    media.sort_unstable();
    media.dedup();
    let place = |medium: &MediumId| media.binary_search(medium).unwrap_or(0) as u16;
    let pack = |row: &Row| {
        let pairs = row.members.iter().zip(&row.target).enumerate();
        let moves = pairs.filter(|(_, (from, to))| from != to);
        let moves = moves.map(|(index, (_, to))| (index as u8, place(to))).collect();
        PackedRow {
            class: row.class,
            row: row.row,
            version: row.version,
            members: row.members.iter().map(place).collect(),
            moves: row.is_moving().then_some(moves),
        }
    };
    let packed = rows.iter().map(pack).collect();
    Packed { rows: packed, media }.serialize(serializer)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Row>, D::Error> {
    let Packed { media, rows } = Packed::deserialize(deserializer)?;
    let medium = |place: &u16| {
        media.get(usize::from(*place)).copied().ok_or_else(|| D::Error::custom("a row names no medium"))
    };
    let unpack = |packed: PackedRow| {
        let PackedRow { class, row, version, members, moves } = packed;
        let members = members.iter().map(medium).collect::<Result<Vec<_>, _>>()?;
        let mut target = Vec::new();
        if let Some(moves) = moves {
            target.clone_from(&members);
            for (index, to) in &moves {
                let at = target.get_mut(usize::from(*index));
                *at.ok_or_else(|| D::Error::custom("a row moves what it has not"))? = medium(to)?;
            }
        }
        Ok(Row { class, row, version, members, target })
    };
    rows.into_iter().map(unpack).collect()
}
