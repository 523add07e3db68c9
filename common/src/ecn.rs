//! Explicit congestion notification across a tunnel (RFC 6040).

/// The ECN bits of TOS and traffic class.
pub const ECN_MASK: u8 = 0b11;
/// The sender doesn't take part.
pub const NOT_ECT: u8 = 0b00;
/// ECN-capable, codepoint 1 (also RFC 9331's).
pub const ECT_1: u8 = 0b01;
/// ECN-capable, codepoint 0.
pub const ECT_0: u8 = 0b10;
/// Congestion experienced.
pub const CE: u8 = 0b11;

/// What the inner header's ECN bits become when the outer ones are taken off (RFC 6040, 4.2, figure 4); none
/// when the packet is to be dropped: a router asked a sender to slow down that doesn't understand it.
#[inline(always)]
pub const fn decapsulated(inner: u8, outer: u8) -> Option<u8> {
    match (inner & ECN_MASK, outer & ECN_MASK) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (_, CE) => Some(CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        (inner, _) => Some(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_rfcs() {
        // Rows: inner Not-ECT, ECT(0), ECT(1), CE; columns: outer Not-ECT, ECT(0), ECT(1), CE.
        let figure_4 = [
            [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None],
            [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)],
            [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)],
            [Some(CE), Some(CE), Some(CE), Some(CE)],
        ];
        let order = [NOT_ECT, ECT_0, ECT_1, CE];
        let ours = order.map(|inner| order.map(|outer| decapsulated(inner, outer)));
        assert_eq!(ours, figure_4);
    }
}
