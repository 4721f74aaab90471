;; Functions of numbers.
(module
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "same64") (param i64) (result i64) (local.get 0))
  (func (export "half") (param f64) (result f64) (f64.div (local.get 0) (f64.const 2)))
  (func (export "half32") (param f32) (result f32) (f32.div (local.get 0) (f32.const 2)))
  (func (export "both") (param i32 f64) (result i32 f64) (local.get 0) (local.get 1))
  (func (export "nothing"))
  (func (export "takes_reference") (param externref)))
