//! A port's policy in one word, so that no packet sees half of one: entry of the map `policies`, by port index.

/// What a port's hooks ask. All zero: no policy, packets of the port are neither judged nor tracked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Number of the compiled ACL for packets from the workload; 0: all pass.
    pub ingress: u16,
    /// Number of the compiled ACL for packets to the workload; 0: all pass.
    pub egress: u16,
    /// Version: raised when a chain changes, and what earlier ones admitted is judged again. From 1 on.
    pub epoch: u32,
}

/// Where a port's chains are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Hook {
    /// Packets that the workload sent.
    Ingress = 0,
    /// Packets to the workload.
    Egress = 1,
}

impl Policy {
    /// The word.
    pub const fn pack(self) -> u64 {
        self.ingress as u64 | (self.egress as u64) << 16 | (self.epoch as u64) << 32
    }

    /// From the word.
    #[inline(always)]
    pub const fn unpack(word: u64) -> Policy {
        Policy {
            ingress: word as u16,
            egress: (word >> 16) as u16,
            epoch: (word >> 32) as u32,
        }
    }

    /// The ACL of a hook.
    #[inline(always)]
    pub const fn acl(self, is_egress: bool) -> u32 {
        if is_egress {
            self.egress as u32
        } else {
            self.ingress as u32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_survives_its_word() {
        let policy = Policy {
            ingress: 0x1234,
            egress: 0x5678,
            epoch: 0x9abc_def0,
        };
        assert_eq!(policy.pack(), 0x9abc_def0_5678_1234);
        assert_eq!(Policy::unpack(policy.pack()), policy);
        assert_eq!(Policy::default().pack(), 0);
    }
}
