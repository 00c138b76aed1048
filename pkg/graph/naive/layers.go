package naive

import (
	"math"

	"meap/pkg/graph"
)

func rmsNorm[T Float](s graph.RMSNorm) kernel[T] {
	return func(in, out []arg[T]) {
		x, w := in[0].f, in[1].f
		n, dim := in[0].s[0], in[0].s[1]
		for r := range n {
			row := x[r*dim : (r+1)*dim]
			var sum T
			for _, v := range row {
				sum += v * v
			}
			rstd := T(1 / math.Sqrt(float64(sum)/float64(dim)+s.Eps))
			out[1].f[r] = rstd
			for k, v := range row {
				out[0].f[r*dim+k] = v * rstd * w[k]
			}
		}
	}
}

func rmsNormGrad[T Float](s graph.RMSNormGrad) kernel[T] {
	return func(in, out []arg[T]) {
		x, w, rstd, dy := in[0].f, in[1].f, in[2].f, in[3].f
		dx, dw := out[0].f, out[1].f
		n, dim := in[0].s[0], in[0].s[1]
		for r := range n {
			var dot T
			for k := r * dim; k < (r+1)*dim; k++ {
				dot += dy[k] * w[k-r*dim] * x[k] * rstd[r]
			}
			dot /= T(dim)
			for k := r * dim; k < (r+1)*dim; k++ {
				d := rstd[r] * (dy[k]*w[k-r*dim] - x[k]*rstd[r]*dot)
				if s.Sum {
					d += in[4].f[k]
				}
				dx[k] = d
			}
		}
		for k := range dim {
			var sum T
			for r := range n {
				sum += dy[r*dim+k] * x[r*dim+k] * rstd[r]
			}
			store(&dw[k], sum, s.AccW)
		}
		if !s.Remake {
			return
		}
		for i, v := range x {
			out[2].f[i] = v * rstd[i/dim] * w[i%dim]
		}
	}
}

func rope[T Float](s graph.RoPE) kernel[T] {
	return func(in, out []arg[T]) {
		x, cos, sin, pos := in[0].f, in[1].f, in[2].f, in[3].i
		n, width, half := in[0].s[0], in[0].s[1], in[1].s[1]
		for r := range n {
			for h := 0; h < width; h += 2 * half {
				for i := range half {
					c, sn := cos[int(pos[r])*half+i], sin[int(pos[r])*half+i]
					if s.Inverse {
						sn = -sn
					}
					a, b := r*width+h+i, r*width+h+half+i
					out[0].f[a], out[0].f[b] = x[a]*c-x[b]*sn, x[b]*c+x[a]*sn
				}
			}
		}
	}
}

func sigmoid[T Float](v T) T { return T(1 / (1 + math.Exp(-float64(v)))) }

func swiGLU[T Float](in, out []arg[T]) {
	for i, g := range in[0].f {
		out[0].f[i] = g * sigmoid(g) * in[1].f[i]
	}
}

func swiGLUGrad[T Float](s graph.SwiGLUGrad) kernel[T] {
	return func(in, out []arg[T]) {
		for i, g := range in[0].f {
			up, dy, sg := in[1].f[i], in[2].f[i], sigmoid(g)
			out[0].f[i] = dy * up * (sg + g*sg*(1-sg))
			out[1].f[i] = dy * g * sg
		}
		if s.Remake {
			swiGLU(in, out[2:])
		}
	}
}

func embedding[T Float](in, out []arg[T]) {
	dim := in[0].s[1]
	for r, id := range in[1].i {
		copy(out[0].f[r*dim:(r+1)*dim], in[0].f[int(id)*dim:])
	}
}

func embeddingGrad[T Float](s graph.EmbeddingGrad) kernel[T] {
	return func(in, out []arg[T]) {
		dim := in[0].s[1]
		if !s.Acc {
			clear(out[0].f)
		}
		for r, id := range in[1].i {
			for k := range dim {
				out[0].f[int(id)*dim+k] += in[0].f[r*dim+k]
			}
		}
	}
}
