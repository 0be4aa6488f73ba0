//! The bounds of one guest run: what a caller may ask, what an operator allows, and what holds in the end.
//!
//! Invariant: effective limits never exceed the operator's or the module's ceilings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes in a mebibyte.
pub const MIB: u64 = 1024 * 1024;
/// Most bytes of input one call takes.
pub const MAX_INPUT_BYTES: u64 = 10 * MIB;
/// Most steps in a chain.
pub const MAX_CHAIN_STEPS: usize = 10;
/// Most bytes of JSON in a stored chain.
pub const MAX_STORED_CHAIN_BYTES: usize = 64 * 1024;
/// How long a call waits for a slot unless told, in milliseconds.
pub const DEFAULT_WAIT_MS: u64 = 30_000;
/// Longest wait for a slot a caller may ask, in milliseconds.
pub const MAX_WAIT_MS: u64 = 120_000;
/// Most environment variables in one call.
pub const MAX_ENV_ENTRIES: usize = 128;
/// Most bytes of environment in one call, names and values together.
pub const MAX_ENV_BYTES: usize = 32 * 1024;
/// Most arguments in one call.
pub const MAX_ARGS: usize = 1000;
/// Most versions that one module keeps.
pub const MAX_VERSIONS: usize = 1000;
/// Most bytes of one stored version record.
pub const MAX_RECORD_BYTES: usize = 256 * 1024;

/// Limits as a caller or a module record states them; what is left out is not asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Longest run from the guest's start, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Most linear memory, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Instruction budget; counting makes tight loops slower, so there is none unless asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    /// Most bytes of output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
}

impl Limits {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A limit that was asked for beyond its ceiling, or as zero.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("limits.{field} is {asked}, but must be from 1 to {ceiling}")]
pub struct LimitRefused {
    /// The field's name on the wire.
    pub field: &'static str,
    /// What was asked.
    pub asked: u64,
    /// The most that is allowed.
    pub ceiling: u64,
}

/// What holds for one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EffectiveLimits {
    /// Longest run from the guest's start, in milliseconds.
    pub timeout_ms: u64,
    /// Most linear memory, in bytes.
    pub memory_bytes: u64,
    /// Instruction budget, when one was asked.
    pub fuel: Option<u64>,
    /// Most bytes of output.
    pub output_bytes: u64,
}

/// What an operator allows: a default and a ceiling for each limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitPolicy {
    /// Holds where neither module nor caller says anything.
    pub default: EffectiveLimits,
    /// Nobody may ask for more.
    pub ceiling: EffectiveLimits,
}

impl Default for LimitPolicy {
    fn default() -> Self {
        let default = EffectiveLimits {
            timeout_ms: 5_000,
            memory_bytes: 64 * MIB,
            fuel: None,
            output_bytes: 10 * MIB,
        };
        let ceiling = EffectiveLimits {
            timeout_ms: 60_000,
            memory_bytes: 512 * MIB,
            ..default
        };
        Self { default, ceiling }
    }
}

impl LimitPolicy {
    /// Checks a module's own limits against the operator's ceilings.
    pub fn check(&self, limits: &Limits) -> Result<(), LimitRefused> {
        self.resolve(&Limits::default(), limits).map(drop)
    }

    /// What holds for a call of a module with these limits that asks for these.
    ///
    /// A module's limit is both its default and its ceiling; a caller may only go below it.
    pub fn resolve(&self, module: &Limits, asked: &Limits) -> Result<EffectiveLimits, LimitRefused> {
        let (default, most) = (&self.default, &self.ceiling);
        let memory = |mb: Option<u64>| mb.map(|mb| mb.saturating_mul(MIB));
        let timeout_ms = bound(
            "timeout_ms",
            default.timeout_ms,
            most.timeout_ms,
            module.timeout_ms,
            asked.timeout_ms,
        )?;
        let memory_bytes = bound(
            "memory_mb",
            default.memory_bytes,
            most.memory_bytes,
            memory(module.memory_mb),
            memory(asked.memory_mb),
        )
        .map_err(|refused| LimitRefused {
            asked: refused.asked / MIB,
            ceiling: refused.ceiling / MIB,
            ..refused
        })?;
        let output_bytes = bound(
            "output_bytes",
            default.output_bytes,
            most.output_bytes,
            module.output_bytes,
            asked.output_bytes,
        )?;
        let most_fuel = most.fuel.unwrap_or(u64::MAX);
        let fuel = match module.fuel.or(asked.fuel).or(default.fuel) {
            Some(usual) => Some(bound("fuel", usual, most_fuel, module.fuel, asked.fuel)?),
            None => None,
        };
        Ok(EffectiveLimits {
            timeout_ms,
            memory_bytes,
            fuel,
            output_bytes,
        })
    }
}

fn bound(
    field: &'static str,
    default: u64,
    most: u64,
    module: Option<u64>,
    asked: Option<u64>,
) -> Result<u64, LimitRefused> {
    let ceiling = module.unwrap_or(most).min(most);
    match asked {
        None => Ok(module.unwrap_or(default).min(ceiling)),
        Some(asked) if (1..=ceiling).contains(&asked) => Ok(asked),
        Some(asked) => Err(LimitRefused {
            field,
            asked,
            ceiling,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits(timeout_ms: Option<u64>, memory_mb: Option<u64>, fuel: Option<u64>) -> Limits {
        Limits {
            timeout_ms,
            memory_mb,
            fuel,
            output_bytes: None,
        }
    }

    #[test]
    fn the_operators_defaults_hold_where_nothing_is_asked() {
        let policy = LimitPolicy::default();
        assert_eq!(
            policy.resolve(&Limits::default(), &Limits::default()).unwrap(),
            policy.default
        );
    }

    #[test]
    fn the_published_defaults_and_ceilings_are_these() {
        let LimitPolicy { default, ceiling } = LimitPolicy::default();
        assert_eq!((default.timeout_ms, ceiling.timeout_ms), (5_000, 60_000));
        assert_eq!(
            (default.memory_bytes, ceiling.memory_bytes),
            (64 << 20, 512 << 20)
        );
        assert_eq!((default.output_bytes, ceiling.output_bytes), (10 << 20, 10 << 20));
        assert_eq!((default.fuel, ceiling.fuel), (None, None));
        assert_eq!((DEFAULT_WAIT_MS, MAX_WAIT_MS), (30_000, 120_000));
        assert_eq!(
            (MAX_INPUT_BYTES, MAX_CHAIN_STEPS, MAX_ARGS),
            (10 << 20, 10, 1_000)
        );
        assert_eq!((MAX_ENV_ENTRIES, MAX_ENV_BYTES), (128, 32 << 10));
    }

    #[test]
    fn a_modules_limit_is_its_default_and_its_ceiling() {
        let policy = LimitPolicy::default();
        let module = limits(Some(20_000), None, Some(500));
        let effective = policy.resolve(&module, &Limits::default()).unwrap();
        assert_eq!((effective.timeout_ms, effective.fuel), (20_000, Some(500)));
        let refused = policy
            .resolve(&module, &limits(Some(20_001), None, None))
            .unwrap_err();
        assert_eq!(
            refused,
            LimitRefused {
                field: "timeout_ms",
                asked: 20_001,
                ceiling: 20_000
            }
        );
        assert_eq!(
            policy
                .resolve(&module, &limits(None, None, Some(501)))
                .unwrap_err()
                .field,
            "fuel"
        );
    }

    #[test]
    fn zero_and_more_than_the_ceiling_are_refused_by_name() {
        let policy = LimitPolicy::default();
        let refused = policy.check(&limits(None, Some(513), None)).unwrap_err();
        assert_eq!(
            refused,
            LimitRefused {
                field: "memory_mb",
                asked: 513,
                ceiling: 512
            }
        );
        assert_eq!(
            policy.check(&limits(Some(0), None, None)).unwrap_err().field,
            "timeout_ms"
        );
        assert_eq!(
            policy.check(&limits(None, None, Some(0))).unwrap_err().field,
            "fuel"
        );
    }

    const MOST_FUEL: u64 = 1_000_000;

    /// With a bound on fuel too.
    fn policy() -> LimitPolicy {
        let mut policy = LimitPolicy::default();
        policy.ceiling.fuel = Some(MOST_FUEL);
        policy
    }

    fn any_limits() -> impl Strategy<Value = Limits> {
        // About the operator's default and ceiling, and anywhere.
        let field = |default: u64, ceiling: u64| {
            let near = |bound: u64| bound.saturating_sub(2)..=bound.saturating_add(2);
            proptest::option::of(prop_oneof![0..=2u64, near(default), near(ceiling), any::<u64>()])
        };
        let LimitPolicy { default, ceiling } = policy();
        let timeout_ms = field(default.timeout_ms, ceiling.timeout_ms);
        let memory_mb = field(default.memory_bytes / MIB, ceiling.memory_bytes / MIB);
        let fuel = field(1_000, MOST_FUEL);
        let output_bytes = field(default.output_bytes, ceiling.output_bytes);
        (timeout_ms, memory_mb, fuel, output_bytes).prop_map(|(timeout_ms, memory_mb, fuel, output_bytes)| {
            Limits {
                timeout_ms,
                memory_mb,
                fuel,
                output_bytes,
            }
        })
    }

    proptest! {
        #[test]
        fn nobody_gets_past_a_ceiling(module in any_limits(), asked in any_limits()) {
            let most = policy().ceiling;
            let below = |most: u64, module: Option<u64>, asked: Option<u64>| {
                most.min(module.unwrap_or(most)).min(asked.unwrap_or(most))
            };
            if let Ok(effective) = policy().resolve(&module, &asked) {
                let memory_mb = below(most.memory_bytes / MIB, module.memory_mb, asked.memory_mb);
                prop_assert!(effective.timeout_ms <= below(most.timeout_ms, module.timeout_ms, asked.timeout_ms));
                prop_assert!(effective.memory_bytes <= memory_mb * MIB);
                prop_assert!(effective.output_bytes <= below(most.output_bytes, module.output_bytes, asked.output_bytes));
                let fuel = below(MOST_FUEL, module.fuel, asked.fuel);
                prop_assert!(effective.fuel.is_none_or(|effective| effective <= fuel));
                prop_assert_eq!(effective.fuel.is_some(), module.fuel.or(asked.fuel).is_some());
            }
        }
    }
}
