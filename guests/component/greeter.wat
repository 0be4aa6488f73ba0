;; A component with records, an enum, an option and a result, as a toolchain would make it from this WIT:
;;
;;   package example:greet@1.0.0;
;;   interface greeter {
;;     record person { name: string, age: option<u8> }
;;     enum tone { plain, warm }
;;     record greeting { text: string, adult: option<bool> }
;;     greet: func(who: person, tone: tone) -> result<greeting, string>;
;;     hello: func(name: string) -> string;
;;   }
(component
  (core module $code
    (memory (export "memory") 1)
    (data (i32.const 16) "Hello, Welcome, !nobody to greet")
    (global $free (mut i32) (i32.const 4096))

    ;; What the host calls to make room for what it gives us. Nothing is ever freed: an instance lives for one call.
    (func $realloc (export "realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at
        (i32.and
          (i32.sub (i32.add (global.get $free) (local.get $align)) (i32.const 1))
          (i32.sub (i32.const 0) (local.get $align))))
      (global.set $free (i32.add (local.get $at) (local.get $size)))
      (block $fits
        (br_if $fits (i32.le_u (global.get $free) (i32.shl (memory.size) (i32.const 16))))
        (br_if $fits
          (i32.ne
            (memory.grow (i32.add (i32.shr_u (local.get $size) (i32.const 16)) (i32.const 1)))
            (i32.const -1)))
        (unreachable))
      (local.get $at))

    ;; "Hello, <name>!" or "Welcome, <name>!"; its place is stored at $to, its length after that.
    (func $write (param $to i32) (param $warm i32) (param $name i32) (param $len i32)
      (local $at i32) (local $greeting i32) (local $greeting-len i32)
      (local.set $greeting (select (i32.const 23) (i32.const 16) (local.get $warm)))
      (local.set $greeting-len (select (i32.const 9) (i32.const 7) (local.get $warm)))
      (local.set $at
        (call $realloc (i32.const 0) (i32.const 0) (i32.const 1) (i32.add (local.get $len) (i32.const 10))))
      (memory.copy (local.get $at) (local.get $greeting) (local.get $greeting-len))
      (memory.copy (i32.add (local.get $at) (local.get $greeting-len)) (local.get $name) (local.get $len))
      (i32.store8
        (i32.add (i32.add (local.get $at) (local.get $greeting-len)) (local.get $len))
        (i32.const 33))
      (i32.store (local.get $to) (local.get $at))
      (i32.store offset=4 (local.get $to) (i32.add (i32.add (local.get $greeting-len) (local.get $len)) (i32.const 1))))

    ;; The result lies at 2048: which case, then its payload.
    (func (export "greet")
      (param $name i32) (param $len i32) (param $has-age i32) (param $age i32) (param $tone i32) (result i32)
      (if (i32.eqz (local.get $len))
        (then
          (i32.store (i32.const 2048) (i32.const 1))
          (i32.store (i32.const 2052) (i32.const 33))
          (i32.store (i32.const 2056) (i32.const 15))
          (return (i32.const 2048))))
      (i32.store (i32.const 2048) (i32.const 0))
      (call $write (i32.const 2052) (local.get $tone) (local.get $name) (local.get $len))
      (i32.store8 (i32.const 2060) (local.get $has-age))
      (i32.store8 (i32.const 2061) (i32.ge_u (local.get $age) (i32.const 18)))
      (i32.const 2048))

    (func (export "hello") (param $name i32) (param $len i32) (result i32)
      (call $write (i32.const 2048) (i32.const 0) (local.get $name) (local.get $len))
      (i32.const 2048)))

  (core instance $code (instantiate $code))
  (alias core export $code "memory" (core memory $memory))
  (alias core export $code "realloc" (core func $realloc))

  (type $person (record (field "name" string) (field "age" (option u8))))
  (type $tone (enum "plain" "warm"))
  (type $greeting (record (field "text" string) (field "adult" (option bool))))

  (func $greet (param "who" $person) (param "tone" $tone) (result (result $greeting (error string)))
    (canon lift (core func $code "greet") (memory $memory) (realloc $realloc)))
  (func $hello (param "name" string) (result string)
    (canon lift (core func $code "hello") (memory $memory) (realloc $realloc)))

  (instance $greeter
    (export "person" (type $person))
    (export "tone" (type $tone))
    (export "greeting" (type $greeting))
    (export "greet" (func $greet))
    (export "hello" (func $hello)))
  (export "example:greet/greeter@1.0.0" (instance $greeter)))
