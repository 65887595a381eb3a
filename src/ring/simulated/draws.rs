//! Random numbers that a seed gives again.

/// One stream for each kind of fault, so that a new kind does not disturb the others.
pub(super) struct Draws {
    pub(super) capacity: Random,
    pub(super) send: Random,
    pub(super) chop: Random,
    pub(super) rearm: Random,
    pub(super) delay: Random,
    pub(super) accept: Random,
    pub(super) transfer: Random,
    pub(super) wake: Random,
}

impl Draws {
    pub(super) fn new(seed: u64) -> Draws {
        Draws {
            capacity: Random::new(seed, 1),
            send: Random::new(seed, 2),
            chop: Random::new(seed, 3),
            rearm: Random::new(seed, 4),
            delay: Random::new(seed, 5),
            accept: Random::new(seed, 6),
            transfer: Random::new(seed, 7),
            wake: Random::new(seed, 8),
        }
    }
}

/// splitmix64: a counter and a mix, good enough to draw faults with.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64, stream: u64) -> Random {
        let mut random = Random(seed ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03));
        random.draw();
        random
    }

    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.draw() % bound as u64) as usize
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
