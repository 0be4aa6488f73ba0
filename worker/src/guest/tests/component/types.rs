//! Any value of any type goes into a guest and comes back the same, and fits the schema that is told of it.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// A type in WAT, with the named types that it needs, and a way to make values of it.
#[derive(Debug, Clone)]
enum Ty {
    Plain(&'static str),
    List(Box<Ty>),
    Tuple(Vec<Ty>),
    Record(Vec<Ty>),
    Variant(Vec<Option<Ty>>),
    Enum(usize),
    Option(Box<Ty>),
    Result(Option<Box<Ty>>, Option<Box<Ty>>),
    Flags(usize),
}

const PLAIN: [&str; 13] = [
    "bool", "s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64", "f32", "f64", "char", "string",
];

fn ty() -> impl Strategy<Value = Ty> {
    let leaf = prop_oneof![
        4 => prop::sample::select(PLAIN.to_vec()).prop_map(Ty::Plain),
        1 => (1..40usize).prop_map(Ty::Enum),
        1 => (1..32usize).prop_map(Ty::Flags),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let boxed = inner.clone().prop_map(Box::new);
        prop_oneof![
            boxed.clone().prop_map(Ty::List),
            vec(inner.clone(), 1..4).prop_map(Ty::Tuple),
            vec(inner.clone(), 1..4).prop_map(Ty::Record),
            vec(prop::option::of(inner), 1..4).prop_map(Ty::Variant),
            boxed.clone().prop_map(Ty::Option),
            (prop::option::of(boxed.clone()), prop::option::of(boxed))
                .prop_map(|(ok, err)| Ty::Result(ok, err)),
        ]
    })
}

impl Ty {
    /// Writes the type; named ones are declared first.
    fn write(&self, types: &mut String, names: &mut Vec<String>) -> String {
        let mut declare = |text: String, types: &mut String| {
            let name = format!("t{}", names.len());
            *types += &format!("(type ${name} {text})\n");
            names.push(name.clone());
            format!("${name}")
        };
        match self {
            Self::Plain(name) => (*name).into(),
            Self::Enum(count) => {
                let cases: String = (0..*count).map(|at| format!(r#" "c{at}""#)).collect();
                declare(format!("(enum{cases})"), types)
            }
            Self::Flags(count) => {
                let flags: String = (0..*count).map(|at| format!(r#" "c{at}""#)).collect();
                declare(format!("(flags{flags})"), types)
            }
            Self::List(inner) => format!("(list {})", inner.write(types, names)),
            Self::Option(inner) => format!("(option {})", inner.write(types, names)),
            Self::Tuple(parts) => {
                let parts: Vec<_> = parts.iter().map(|part| part.write(types, names)).collect();
                format!("(tuple {})", parts.join(" "))
            }
            Self::Result(ok, err) => {
                let ok = ok.as_ref().map(|ok| ok.write(types, names)).unwrap_or_default();
                let err = err
                    .as_ref()
                    .map(|err| format!("(error {})", err.write(types, names)));
                format!("(result {ok} {})", err.unwrap_or_default())
            }
            Self::Record(fields) => {
                let fields: Vec<_> = fields.iter().map(|field| field.write(types, names)).collect();
                let text: String = (0..)
                    .zip(fields)
                    .map(|(at, ty)| format!(r#"(field "f{at}" {ty})"#))
                    .collect();
                let name = format!("t{}", names.len());
                *types += &format!("(type ${name} (record {text}))\n");
                names.push(name.clone());
                format!("${name}")
            }
            Self::Variant(cases) => {
                let cases: Vec<_> = cases
                    .iter()
                    .map(|case| {
                        case.as_ref()
                            .map(|case| case.write(types, names))
                            .unwrap_or_default()
                    })
                    .collect();
                let text: String = (0..)
                    .zip(cases)
                    .map(|(at, ty)| format!(r#"(case "c{at}" {ty})"#))
                    .collect();
                let name = format!("t{}", names.len());
                *types += &format!("(type ${name} (variant {text}))\n");
                names.push(name.clone());
                format!("${name}")
            }
        }
    }

    /// Values as they come out.
    fn value(&self) -> BoxedStrategy<Value> {
        match self {
            Self::Plain(name) => plain(name),
            Self::Enum(count) => (0..*count).prop_map(|at| json!(format!("c{at}"))).boxed(),
            Self::Flags(count) => vec(any::<bool>(), *count)
                .prop_map(|set| (0..).zip(set).filter(|(_, set)| *set).map(|(at, _)| format!("c{at}")).collect())
                .boxed(),
            Self::List(inner) if matches!(**inner, Self::Plain("u8")) => vec(any::<u8>(), 0..5)
                .prop_map(|bytes| {
                    json!({"base64": base64::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes)})
                })
                .boxed(),
            Self::List(inner) => vec(inner.value(), 0..4).prop_map(Value::Array).boxed(),
            Self::Tuple(parts) => parts.iter().map(Self::value).collect::<Vec<_>>().prop_map(Value::Array).boxed(),
            Self::Record(fields) => fields
                .iter()
                .map(Self::value)
                .collect::<Vec<_>>()
                .prop_map(|values| {
                    let fields = (0..).zip(values).map(|(at, value)| (format!("f{at}"), value));
                    Value::Object(fields.collect())
                })
                .boxed(),
            Self::Variant(cases) => {
                let cases = cases.iter().enumerate().map(|(at, case)| match case {
                    None => Just(json!(format!("c{at}"))).boxed(),
                    Some(case) => case.value().prop_map(move |value| json!({format!("c{at}"): value})).boxed(),
                });
                proptest::strategy::Union::new(cases.collect::<Vec<_>>()).boxed()
            }
            Self::Option(inner) => {
                let nested = matches!(**inner, Self::Option(_));
                let some = inner.value().prop_map(move |value| if nested { json!({"some": value}) } else { value });
                prop_oneof![Just(Value::Null), some].boxed()
            }
            Self::Result(ok, err) => {
                let side = |name: &'static str, ty: &Option<Box<Self>>| {
                    let value = ty.as_ref().map_or(Just(Value::Null).boxed(), |ty| ty.value());
                    value.prop_map(move |value| json!({name: value}))
                };
                prop_oneof![side("ok", ok), side("err", err)].boxed()
            }
        }
    }
}

fn plain(name: &str) -> BoxedStrategy<Value> {
    let exact = |wide: i128| match i64::try_from(wide) {
        Ok(exact) if exact.unsigned_abs() <= 1 << 53 => json!(exact),
        _ => json!(wide.to_string()),
    };
    let float = |number: f64| match number {
        number if number.is_nan() => json!("NaN"),
        f64::INFINITY => json!("Infinity"),
        f64::NEG_INFINITY => json!("-Infinity"),
        number => json!(number),
    };
    match name {
        "bool" => any::<bool>().prop_map(Value::from).boxed(),
        "s8" => any::<i8>().prop_map(Value::from).boxed(),
        "u8" => any::<u8>().prop_map(Value::from).boxed(),
        "s16" => any::<i16>().prop_map(Value::from).boxed(),
        "u16" => any::<u16>().prop_map(Value::from).boxed(),
        "s32" => any::<i32>().prop_map(Value::from).boxed(),
        "u32" => any::<u32>().prop_map(Value::from).boxed(),
        "s64" => any::<i64>().prop_map(move |number| exact(number.into())).boxed(),
        "u64" => any::<u64>().prop_map(move |number| exact(number.into())).boxed(),
        "f32" => prop::num::f32::ANY
            .prop_map(move |number| float(number.to_string().parse().unwrap_or(f64::NAN)))
            .boxed(),
        "f64" => prop::num::f64::ANY.prop_map(float).boxed(),
        "char" => any::<char>().prop_map(|char| json!(char)).boxed(),
        _ => any::<String>().prop_map(Value::from).boxed(),
    }
}

#[test]
fn every_value_of_every_type_comes_back_the_same_and_fits_its_schema() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let engines = engines();
    // Each case compiles a component: fewer than other properties have, unless it is said how many.
    let cases = wess_harness::number("PROPTEST_CASES").unwrap_or(96);
    let mut runner = TestRunner::new(Config::with_cases(u32::try_from(cases).unwrap()));
    let typed = ty().prop_flat_map(|ty| {
        let values = vec(ty.value(), 1..8);
        (Just(ty), values)
    });
    let same = runner.run(&typed, |(ty, values)| {
        let (mut types, mut names) = (String::new(), Vec::new());
        let text = ty.write(&mut types, &mut names);
        let guest = Guest::load(&echo(&types, &names, &text), &engines, Metering::Off);
        let export = guest.export(FUNCTION);
        let (schema, given_back) = (validator(export.args_schema), validator(export.results_schema));
        for value in values {
            let call = echoed(&value);
            let given = Value::Array(call.args.clone().unwrap());
            prop_assert!(schema.is_valid(&given), "{given} does not fit its schema");
            let results = runtime.block_on(guest.results(call));
            prop_assert!(given_back.is_valid(&results), "{results} does not fit its schema");
            prop_assert_eq!(results, json!([[value, 7]]));
        }
        Ok(())
    });
    same.unwrap();
}

#[test]
fn what_does_not_fit_does_not_fit_the_schema_either() {
    let greet = Guest::file("component/greeter.wat");
    let schema = validator(greet.export("example:greet/greeter@1.0.0#greet").args_schema);
    assert!(schema.is_valid(&json!([{"name": "Ada", "age": 36}, "warm"])));
    assert!(schema.is_valid(&json!([{"name": "Ada"}, "warm"])));
    for wrong in [
        json!([]),
        json!([{"name": "Ada"}]),
        json!([{"name": "Ada", "age": 256}, "warm"]),
        json!([{"name": "Ada", "agee": 1}, "warm"]),
        json!([{"age": 1}, "warm"]),
        json!([{"name": "Ada"}, "hot"]),
        json!([{"name": "Ada"}, "warm", 1]),
    ] {
        assert!(!schema.is_valid(&wrong), "{wrong}");
        assert!(greet.plan(named("greet", args(wrong))).is_err());
    }
}

#[test]
fn the_interface_is_told_as_wit_and_as_signatures() {
    let greet = Guest::file("component/greeter.wat");
    for (function, signature) in [
        ("greet", "(who: person, tone: tone) -> result<greeting, string>"),
        ("hello", "(name: string) -> string"),
    ] {
        let export = greet.export(&format!("example:greet/greeter@1.0.0#{function}"));
        assert_eq!(export.signature, signature);
    }
    let wit = greet.inspection.component.unwrap().wit.unwrap();
    assert_names(
        &wit,
        &[
            "record person {",
            "age: option<u8>",
            "export example:greet/greeter@1.0.0",
        ],
    );
}
