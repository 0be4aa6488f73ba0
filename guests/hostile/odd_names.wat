;; Exports whose names can be no subject, or look like something else.
(module
  (func $answer (export "") (export "two words") (export "*") (export ">") (export "a.b") (export "$SRV.PING")
    (export "line\nbreak") (export "\e2\80\ae") (result i32) (i32.const 42)))
