//! Numbers between JSON and WebAssembly, the same for core functions and components.
//!
//! 64-bit integers beyond 2^53 travel as strings, NaN and the infinities as `"NaN"`, `"Infinity"`, `"-Infinity"`.

use serde_json::{Number, Value};

/// The largest integer that every JSON reader keeps exact.
pub(super) const MAX_EXACT: i64 = 1 << 53;

/// A JSON number without a fraction; `3.0` counts, as some writers know no other form.
pub(super) fn integer(arg: &Value) -> Option<i128> {
    let Value::Number(number) = arg else { return None };
    let whole = |float: f64| (float.fract() == 0.0 && float.abs() < 1e20).then_some(float as i128);
    let exact = number
        .as_i64()
        .map(i128::from)
        .or_else(|| number.as_u64().map(i128::from));
    exact.or_else(|| number.as_f64().and_then(whole))
}

/// An integer of 64 bits, as a string or, while it is exact, as a number; `None` for anything else.
pub(super) fn to_wide(arg: &Value) -> Result<Option<i128>, &'static str> {
    const LONGEST: usize = 20;
    if let Value::String(digits) = arg {
        let plain = digits.len() <= LONGEST && !digits.starts_with('+');
        return Ok(digits.parse().ok().filter(|_| plain));
    }
    match integer(arg) {
        Some(wide) if wide.abs() > i128::from(MAX_EXACT) => {
            Err("is beyond 2^53, where JSON numbers are not exact: send it as a string")
        }
        exact => Ok(exact),
    }
}

/// An integer of 64 bits as JSON.
pub(super) fn from_wide(number: i128) -> Value {
    match i64::try_from(number) {
        Ok(exact) if exact.unsigned_abs() <= MAX_EXACT.unsigned_abs() => Value::from(exact),
        _ => Value::from(number.to_string()),
    }
}

/// A JSON number, or one of the three words.
pub(super) fn float(arg: &Value) -> Option<f64> {
    match arg {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// The f64 whose shortest text names this f32, not the one that it widens to.
pub(super) fn widened(narrow: f32) -> f64 {
    narrow.to_string().parse().unwrap_or(f64::NAN)
}

/// A float as JSON.
pub(super) fn from_float(number: f64) -> Value {
    match Number::from_f64(number) {
        Some(finite) => Value::Number(finite),
        None if number.is_nan() => Value::from("NaN"),
        None if number > 0.0 => Value::from("Infinity"),
        None => Value::from("-Infinity"),
    }
}
