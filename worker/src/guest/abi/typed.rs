//! JSON arguments to numbers and back, checked against the function's signature.
//!
//! 64-bit integers beyond 2^53 travel as strings, NaN and the infinities as `"NaN"`, `"Infinity"`, `"-Infinity"`.

use serde_json::Value;
use wasmtime::{Store, Val};
use wess_schemas::module::{FunctionExport, ValueType};
use wess_schemas::{ErrorBody, ErrorCode};

use super::CallInput;
use super::number::{float, from_float, from_wide, integer, to_wide, widened};
use crate::guest::ending::{Answer, GuestFault};
use crate::guest::host::GuestState;
use crate::guest::module::{LiveModule, LoadedModule};

/// A typed call whose arguments fit.
#[derive(Debug)]
pub struct TypedPlan {
    pub(super) function: String,
    params: Vec<Val>,
    results: usize,
}

impl TypedPlan {
    /// Checks a call's arguments against a signature.
    pub(super) fn new(export: &FunctionExport, call: CallInput) -> Result<Self, ErrorBody> {
        if let Some(foreign) = export
            .params
            .iter()
            .chain(&export.results)
            .find(|ty| !ty.is_number())
        {
            let message = format!(
                "the function {:?} has a {} in its signature",
                export.name,
                foreign.as_str()
            );
            return Err(ErrorBody::new(ErrorCode::Unsupported, message));
        }
        let args = arguments(call)?;
        if args.len() != export.params.len() {
            let message = format!(
                "the function {:?} takes {} arguments {}, but {} were given",
                export.name,
                export.params.len(),
                signature(&export.params),
                args.len()
            );
            return Err(ErrorBody::new(ErrorCode::InvalidArguments, message));
        }
        let params = args.iter().zip(&export.params).enumerate();
        let params = params
            .map(|(at, (arg, ty))| to_val(arg, *ty).map_err(|why| misfit(at, &why)))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            function: export.name.clone(),
            params,
            results: export.results.len(),
        })
    }

    pub(in crate::guest) async fn run(
        self,
        store: &mut Store<GuestState>,
        module: &LoadedModule,
        live: &mut Option<LiveModule>,
    ) -> Result<Answer, GuestFault> {
        let live = module.instance(store, live).await?;
        let function = live
            .function(module, &mut *store, self.function)
            .ok_or(GuestFault::Mismatch)?;
        let mut results = vec![Val::I32(0); self.results];
        function
            .call_async(&mut *store, &self.params, &mut results)
            .await?;
        let results = results.iter().map(from_val).collect();
        Ok(Answer {
            results: Some(results),
            ..Answer::default()
        })
    }
}

fn signature(types: &[ValueType]) -> String {
    let names: Vec<_> = types.iter().map(|ty| ty.as_str()).collect();
    format!("({})", names.join(", "))
}

/// The arguments, given as such or as raw JSON input: an array is all of them, any other value the only one.
pub(super) fn arguments(call: CallInput) -> Result<Vec<Value>, ErrorBody> {
    let invalid = |message: &str| Err(ErrorBody::new(ErrorCode::InvalidArguments, message));
    match (call.args, call.input) {
        (Some(_), Some(input)) if !input.is_empty() => Err(ErrorBody::new(
            ErrorCode::InvalidRequest,
            "args and input exclude each other for a function that takes arguments",
        )),
        (Some(args), _) => Ok(args),
        (None, Some(input)) if !input.trim_ascii().is_empty() => match serde_json::from_slice(&input) {
            Ok(Value::Array(args)) => Ok(args),
            Ok(only) => Ok(vec![only]),
            Err(_) => invalid(
                "the input of a function that takes arguments must be JSON: an array of them, or the only one",
            ),
        },
        (None, _) => Ok(Vec::new()),
    }
}

fn misfit(at: usize, why: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidArguments, format!("args[{at}] {why}")).with("argument", at)
}

fn to_val(arg: &Value, ty: ValueType) -> Result<Val, String> {
    match ty {
        ValueType::I32 => {
            let wide = integer(arg).ok_or_else(|| wrong(arg, "a 32-bit integer"))?;
            i32::try_from(wide)
                .map(Val::I32)
                .map_err(|_| format!("is {wide}, which does not fit into 32 bits"))
        }
        ValueType::I64 => to_i64(arg).map(Val::I64),
        ValueType::F32 => {
            let wide = float(arg).ok_or_else(|| wrong(arg, "a number"))?;
            let narrow = wide as f32;
            if narrow.is_infinite() && wide.is_finite() {
                return Err(format!("is {wide}, which does not fit into a 32-bit float"));
            }
            Ok(Val::F32(narrow.to_bits()))
        }
        ValueType::F64 => float(arg)
            .map(|number| Val::F64(number.to_bits()))
            .ok_or_else(|| wrong(arg, "a number")),
        ValueType::V128 | ValueType::Ref => Err(format!("cannot become a {}", ty.as_str())),
    }
}

fn to_i64(arg: &Value) -> Result<i64, String> {
    let wide = to_wide(arg).map_err(str::to_owned)?;
    wide.and_then(|wide| i64::try_from(wide).ok())
        .ok_or_else(|| wrong(arg, "a 64-bit integer"))
}

fn wrong(arg: &Value, wanted: &str) -> String {
    let kind = match arg {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number of another kind",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    format!("is {kind}, but must be {wanted}")
}

fn from_val(val: &Val) -> Value {
    match val {
        Val::I32(number) => Value::from(*number),
        Val::I64(number) => from_wide((*number).into()),
        Val::F32(bits) => from_float(widened(f32::from_bits(*bits))),
        Val::F64(bits) => from_float(f64::from_bits(*bits)),
        _ => Value::Null,
    }
}

/// Results as raw output: the bare value when there is one, else an array.
pub fn raw_output(results: &[Value]) -> Vec<u8> {
    let text = match results {
        [only] => only.to_string(),
        several => Value::from(several).to_string(),
    };
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::abi::number::MAX_EXACT;
    use serde_json::json;

    fn round(arg: Value, ty: ValueType) -> Result<Value, String> {
        to_val(&arg, ty).map(|val| from_val(&val))
    }

    #[test]
    fn integers_that_fit_go_both_ways_and_others_are_refused() {
        assert_eq!(
            round(json!(-2147483648i64), ValueType::I32),
            Ok(json!(-2147483648i64))
        );
        assert_eq!(round(json!(3.0), ValueType::I32), Ok(json!(3)));
        for bad in [
            json!(2147483648i64),
            json!(-2147483649i64),
            json!(1.5),
            json!("1"),
            json!(null),
            json!(true),
            json!([1]),
        ] {
            assert!(round(bad.clone(), ValueType::I32).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn wide_integers_travel_as_strings_in_both_directions() {
        let exact = MAX_EXACT;
        assert_eq!(round(json!(exact), ValueType::I64), Ok(json!(exact)));
        assert!(
            round(json!(exact + 1), ValueType::I64)
                .unwrap_err()
                .contains("string")
        );
        for wide in [i64::MAX, i64::MIN, exact + 1] {
            assert_eq!(
                round(json!(wide.to_string()), ValueType::I64),
                Ok(json!(wide.to_string()))
            );
        }
        for bad in [
            json!("9223372036854775808"),
            json!("1.5"),
            json!(""),
            json!(1e19),
            json!(u64::MAX),
        ] {
            assert!(round(bad.clone(), ValueType::I64).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn floats_keep_nan_and_the_infinities_and_print_short() {
        for ty in [ValueType::F32, ValueType::F64] {
            for special in ["NaN", "Infinity", "-Infinity"] {
                assert_eq!(round(json!(special), ty), Ok(json!(special)));
            }
            assert_eq!(round(json!(0.1), ty), Ok(json!(0.1)));
        }
        assert!(
            round(json!(1e300), ValueType::F32)
                .unwrap_err()
                .contains("32-bit float")
        );
        assert!(round(json!("inf"), ValueType::F64).is_err());
    }
}
