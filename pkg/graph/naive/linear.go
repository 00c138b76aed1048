package naive

import "meap/pkg/graph"

func linear[T Float](s graph.Linear) kernel[T] {
	return func(in, out []arg[T]) {
		x, w := in[0], in[1]
		n, dim, o := x.s[0], x.s[1], w.s[0]
		for r := range n {
			for c := range o {
				var sum T
				for k := range dim {
					sum += round(x.f[r*dim+k], s.Precision) * round(w.f[c*dim+k], s.Precision)
				}
				if s.Bias {
					sum += in[2].f[c]
				}
				if s.Sum {
					sum += in[2].f[r*o+c]
				}
				out[0].f[r*o+c] = sum
			}
		}
	}
}

func linearDX[T Float](s graph.LinearDX) kernel[T] {
	return func(in, out []arg[T]) {
		dy, w := in[0], in[1]
		n, o, dim := dy.s[0], dy.s[1], w.s[1]
		for r := range n {
			for k := range dim {
				var sum T
				for c := range o {
					sum += round(dy.f[r*o+c], s.Precision) * round(w.f[c*dim+k], s.Precision)
				}
				if s.Sum {
					sum += in[2].f[r*dim+k]
				}
				out[0].f[r*dim+k] = sum
			}
		}
	}
}

func linearDW[T Float](s graph.LinearDW) kernel[T] {
	return func(in, out []arg[T]) {
		dy, x := in[0], in[1]
		n, o, dim := dy.s[0], dy.s[1], x.s[1]
		for c := range o {
			for k := range dim {
				var sum T
				for r := range n {
					sum += round(dy.f[r*o+c], s.Precision) * round(x.f[r*dim+k], s.Precision)
				}
				store(&out[0].f[c*dim+k], sum, s.Acc)
			}
		}
	}
}

func columnSum[T Float](s graph.ColumnSum) kernel[T] {
	return func(in, out []arg[T]) {
		n, o := in[0].s[0], in[0].s[1]
		for c := range o {
			var sum T
			for r := range n {
				sum += in[0].f[r*o+c]
			}
			store(&out[0].f[c], sum, s.Acc)
		}
	}
}

func store[T Float](p *T, v T, acc bool) {
	if acc {
		v += *p
	}
	*p = v
}
