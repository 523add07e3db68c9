//! A compiled ACL as the cells of the kernel's map: layout in `weft_common::acl`.
//!
//! No state. Numbers of entries become numbers of cells.

use super::acl::{Acl, AddressClass, Bound, PrefixEntry, SetEntry, SideTable};
use super::evaluate::Decision;
use super::flatten::{Act, Side};
use super::sets::SetId;
use ipnet::IpNet;
use weft_common::acl::{self as layout, Cell, Class, Head, PREFIX_CELLS, SetKey, SetList, pair};
use weft_common::limits::GROUPS_PER_ADDRESS_MAX;

/// First cells of the parts that are of no fixed size.
struct Places {
    bounds: u32,
    prefixes: u32,
    sets: u32,
    vectors: u32,
    words: u32,
    rules: u32,
}

impl Acl {
    /// Its map's cells. `tenant` is the number under which the kernel's table of sets has those of the ACL's tenant.
    pub fn cells(&self, tenant: u32) -> Vec<Cell> {
        let places = self.places();
        let mut cells = vec![Cell::default(); layout::BODY as usize];
        cells[layout::HEAD as usize] = self.head(tenant, &places).cell();
        for table in &self.sides {
            let first = layout::SIDES + layout::SIDE_CELLS * table.side as u32;
            cells[first as usize..][..2].copy_from_slice(&places.side(table));
        }
        for (index, table) in self.fields.iter().enumerate() {
            let kind = table.field.kind() as u64;
            let first = places.bounds + table.first;
            cells[layout::FIELDS as usize + index] =
                [kind | table.field.mask() << 16, pair(first, table.len)];
        }
        cells.extend(self.bounds.iter().map(|it| places.bound(it)));
        cells.extend(self.prefixes.iter().flat_map(|it| places.prefix(it)));
        cells.extend(self.sets.iter().map(|it| places.set(it)));
        let words = places.words * 2;
        cells.extend(
            self.vectors
                .iter()
                .map(|it| [it.summary, u64::from(words + it.first)]),
        );
        let pairs = self.words.chunks(2);
        cells.extend(pairs.map(|it| [it[0], it.get(1).copied().unwrap_or(0)]));
        cells.extend(self.rules.iter().map(|rule| {
            let (act, target) = match rule.act {
                Act::End(Decision::Accept) => (layout::ACCEPT, 0),
                Act::End(Decision::Drop) => (layout::DROP, 0),
                Act::End(Decision::Reject) => (layout::REJECT, 0),
                Act::Step(target) => (layout::STEP, target),
            };
            layout::rule_cell(act, target, rule.is_logged)
        }));
        cells.resize(cells.len() + self.rules.len(), Cell::default());
        cells
    }

    fn head(&self, tenant: u32, places: &Places) -> Head {
        let asked = |all, table: &SideTable| all | 1 << table.side as u8;
        Head {
            fields: self.fields.len() as u8,
            sides: self.sides.iter().fold(0, asked),
            flags: self.flags,
            tenant,
            rules: places.rules,
            rule_count: self.rules.len() as u32,
        }
    }

    fn places(&self) -> Places {
        let bounds = layout::BODY;
        let prefixes = bounds + self.bounds.len() as u32;
        let sets = prefixes + PREFIX_CELLS * self.prefixes.len() as u32;
        let vectors = sets + self.sets.len() as u32;
        let words = vectors + self.vectors.len() as u32;
        let rules = words + self.words.len().div_ceil(2) as u32;
        Places {
            bounds,
            prefixes,
            sets,
            vectors,
            words,
            rules,
        }
    }
}

/// The key of a prefix in the kernel's table of sets, and its length in bits.
pub fn set_key(tenant: u32, prefix: IpNet) -> (SetKey, u8) {
    let mut address = [0; 16];
    let family = match prefix.trunc() {
        IpNet::V4(it) => {
            address[..4].copy_from_slice(&it.addr().octets());
            0
        }
        IpNet::V6(it) => {
            address = it.addr().octets();
            1
        }
    };
    let key = SetKey {
        tenant,
        family,
        address,
    };
    (key, prefix.prefix_len())
}

/// The groups of a prefix as the kernel's table has them.
pub fn set_list(sets: &[SetId]) -> SetList {
    let mut list = SetList {
        count: sets.len().min(GROUPS_PER_ADDRESS_MAX) as u32,
        sets: [0; GROUPS_PER_ADDRESS_MAX],
    };
    for (place, set) in list.sets.iter_mut().zip(sets) {
        *place = set.0;
    }
    list
}

impl Places {
    fn class(&self, class: AddressClass) -> u64 {
        let class = Class {
            plain: self.vectors + class.plain,
            alone: self.vectors + class.alone,
        };
        class.word()
    }

    fn side(&self, table: &SideTable) -> [Cell; 2] {
        let prefixes = |(first, len)| pair(self.prefixes + PREFIX_CELLS * first, len);
        let (first, len) = table.sets;
        [
            table.prefixes.map(prefixes),
            [pair(self.sets + first, len), self.class(table.outside)],
        ]
    }

    fn bound(&self, bound: &Bound) -> Cell {
        [bound.key, u64::from(self.vectors + bound.vector)]
    }

    fn prefix(&self, entry: &PrefixEntry) -> [Cell; 2] {
        [
            [(entry.bits >> 64) as u64, entry.bits as u64],
            [pair(entry.len.into(), entry.wider), self.class(entry.class)],
        ]
    }

    fn set(&self, entry: &SetEntry) -> Cell {
        let vectors = pair(self.vectors + entry.adds, self.vectors + entry.takes);
        [u64::from(entry.set.0), vectors]
    }
}

const _: () = assert!(Side::Src as u8 == 0 && Side::Dst as u8 == 1);
