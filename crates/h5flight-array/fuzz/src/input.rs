//! An input as a stream of decisions. When it ends, every decision is 0.

use h5flight_array::meta::{ByteOrder, ElementType, Member, StringPadding, Text};

/// Numbers at which arithmetic goes wrong.
const EDGES: [u64; 22] = [
    0,
    1,
    2,
    3,
    7,
    8,
    255,
    256,
    65_535,
    65_536,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 40,
    (1 << 62) - 1,
    1 << 62,
    (1 << 63) - 1,
    1 << 63,
    (1 << 63) + 1,
    u64::MAX - 1,
    u64::MAX,
];

pub(crate) struct Input<'a> {
    left: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { left: data }
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((byte, left)) = self.left.split_first() else { return 0 };
        self.left = left;
        *byte
    }

    /// A number below `bound`, which is at most 256.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Small, an edge, or anything.
    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..128 => u64::from(small) % 24,
            edge @ 128..224 => EDGES[usize::from(edge) % EDGES.len()].wrapping_add(u64::from(edge & 32)),
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    pub(crate) fn signed(&mut self) -> i64 {
        let number = self.number() as i64;
        if self.coin() { number.wrapping_neg() } else { number }
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.left
    }

    fn order(&mut self) -> ByteOrder {
        if self.coin() { ByteOrder::Big } else { ByteOrder::Little }
    }

    /// An element type, not always a possible one.
    pub(crate) fn element(&mut self, depth: usize) -> ElementType {
        let text = |input: &mut Self| if input.coin() { Text::Binary } else { Text::Utf8 };
        let bytes = |input: &mut Self| 1 + input.below(9) as u32;
        let inner = |input: &mut Self| Box::new(input.element(depth + 1));
        // Containers get rarer with depth, so that types end.
        match self.below(if depth < 4 { 16 } else { 9 }) {
            0 | 1 => {
                let (bytes, signed) = (1 << self.below(4), self.coin());
                ElementType::Integer { bytes, signed, order: self.order() }
            }
            2 => ElementType::Float { bytes: 2 << self.below(3), order: self.order() },
            3 => ElementType::Bool,
            4 => {
                let padding = [StringPadding::NullTerminated, StringPadding::NullPadded, StringPadding::SpacePadded];
                ElementType::FixedString { bytes: bytes(self), padding: padding[self.below(3)], text: text(self) }
            }
            5 => ElementType::VarString { text: text(self) },
            6 => ElementType::Reference { region: self.coin() },
            7 => ElementType::Opaque { bytes: bytes(self), tag: String::new() },
            8 => ElementType::Bitfield { bytes: bytes(self), order: self.order() },
            9 => {
                let members = (0..self.below(4)).map(|_| ("name".to_owned(), self.signed())).collect();
                ElementType::Enum { base: inner(self), members }
            }
            10 | 11 => ElementType::VarLen { item: inner(self) },
            12 => ElementType::Complex { part: inner(self) },
            13 => {
                let dims = (0..self.below(4)).map(|_| self.number() as u32).collect();
                ElementType::Array { dims, item: inner(self) }
            }
            _ => self.compound(depth),
        }
    }

    /// Members side by side, or anywhere.
    fn compound(&mut self, depth: usize) -> ElementType {
        let (mut members, mut end, honest) = (Vec::new(), 0u32, !self.coin());
        for at in 0..self.below(5) {
            let element = self.element(depth + 1);
            let bytes = element.fixed_bytes().unwrap_or(16).min(1 << 20) as u32;
            let offset = if honest { end } else { self.number() as u32 };
            end = offset.saturating_add(bytes);
            members.push(Member { name: format!("m{at}"), offset, element });
        }
        ElementType::Compound { bytes: end, members }
    }
}
