// Kernels on rows and vectors, written once for every vector width. The file
// that includes this defines W (lanes), vf (a vector of floats), vm (a mask of
// lanes), vd (as many doubles) and the operations on them, loadh and storeh for
// vectors of bf16 numbers among them, and NAME, which appends the instruction set
// to a function's name.
//
// The plain Go version of each kernel stands beside the method that calls it.
// Sums run over W lanes side by side and are joined in a fixed order
// at the end, so they depend on nothing but the row.
#pragma once

#define ALL 1
#define INLINE static inline __attribute__((always_inline))

// Loads and stores that are masked only at the end of a vector: masked stores
// are slow on some processors.
INLINE vf get(const float *p, vm m, int all) { return all ? load(p) : loadm(p, m); }
INLINE void put(float *p, vf x, vm m, int all) {
  if (all) store(p, x);
  else storem(p, x, m);
}

// EACH(n, BODY) runs BODY(i, m, all) for every W elements.
#define EACH(n, BODY)                          \
  do {                                         \
    long i = 0, len = (n);                     \
    vm none = firstm(0);                       \
    for (; i + W <= len; i += W) {             \
      BODY(i, none, ALL)                       \
    }                                          \
    if (i < len) {                             \
      vm m = firstm(len - i);                  \
      BODY(i, m, 0)                            \
    }                                          \
  } while (0)

// e^r for r = x - n ln 2; see vexp.
INLINE vf vexprest(vf x, vf n) {
  vf r = vfma(n, set(-0.693145752f), x);
  r = vfma(n, set(-1.42860677e-6f), r);
  vf p = set(1.381446706e-3f);
  p = vfma(p, r, set(8.368780411e-3f));
  p = vfma(p, r, set(4.166839421e-2f));
  p = vfma(p, r, set(1.666652011e-1f));
  p = vfma(p, r, set(4.999999341e-1f));
  p = vfma(vmul(r, r), p, r);
  return vadd(p, set(1.0f));
}

// e^x to about 1.2e-7, relative. x = n ln 2 + r with |r| <= ln 2 / 2, ln 2 in two
// parts so that n ln 2 is exact enough; e^r = 1 + r + r^2 P(r), where P is the
// minimax polynomial for the relative error of e^r (3.1e-9), and e^0 is exactly 1.
// Results below the smallest normal number are 0, above the largest one
// infinity; NaN stays NaN.
INLINE vf vexp(vf x) {
  vf y = vmin(set(89.0f), vmax(set(-88.0f), x)); // in this order: NaN passes
  vf n = vround(vmul(y, set(1.44269504f)));
  return zerom(vscale2(vexprest(y, n), n), belowm(x, set(-87.3365448f)));
}

// vexp for weights of a softmax, that is x no more than about 0: without the care that
// large results take it is a shorter chain of dependent operations, which is what the
// time goes into.
INLINE vf vexpweight(vf x) {
  vf n = vround(vmul(x, set(1.44269504f)));
  return zerom(vscale(vexprest(x, n), n), belowm(x, set(-87.3365448f)));
}

INLINE vf vsigmoid(vf x) { // 1 / (1 + e^-x)
  vf one = set(1.0f);
  return vdiv(one, vadd(one, vexp(vsub(vzero(), x))));
}

// b = e^a
void NAME(exp)(const vec_args *v) {
#define BODY(i, m, all) put(v->b + i, vexp(get(v->a + i, m, all)), m, all);
  EACH(v->n, BODY);
#undef BODY
}

// b = s1 e^(a - s0)
void NAME(expScale)(const vec_args *v) {
  vf shift = vset(v->s[0]), scale = vset(v->s[1]);
#define BODY(i, m, all) \
  put(v->b + i, vmul(scale, vexp(vsub(get(v->a + i, m, all), shift))), m, all);
  EACH(v->n, BODY);
#undef BODY
}

// sum of b = e^(a - s0)
void NAME(expSum)(vec_args *v) {
  vf shift = vset(v->s[0]);
  vd sum = dzero();
#define BODY(i, m, all)                                \
  vf e = vexp(vsub(get(v->a + i, m, all), shift));     \
  if (!all) e = keepm(e, m);                           \
  put(v->b + i, e, m, all);                            \
  sum = daddf(sum, e);
  EACH(v->n, BODY);
#undef BODY
  v->sum = dreduce(sum);
}

// s0 = max(s0, a), NaN ignored
void NAME(max)(vec_args *v) {
  vf top = vset(v->s[0]);
#define BODY(i, m, all)                                             \
  vf x = get(v->a + i, m, all);                                     \
  top = vmax(all ? x : selectm(m, x, top), top);
  EACH(v->n, BODY);
#undef BODY
  v->s[0] = vreducemax(top);
}

// c = silu(a) b
void NAME(swiGLU)(const vec_args *v) {
#define BODY(i, m, all)                                            \
  vf g = get(v->a + i, m, all);                                    \
  put(v->c + i, vmul(vmul(g, vsigmoid(g)), get(v->b + i, m, all)), m, all);
  EACH(v->n, BODY);
#undef BODY
}

// a gate, b up, c dy -> d dgate, e dup
void NAME(swiGLUGrad)(const vec_args *v) {
  vf one = set(1.0f);
#define BODY(i, m, all)                                                   \
  vf g = get(v->a + i, m, all), u = get(v->b + i, m, all);                \
  vf dy = get(v->c + i, m, all), s = vsigmoid(g), y = vmul(g, s);         \
  vf slope = vfma(y, vsub(one, s), s);                                    \
  put(v->d + i, vmul(vmul(dy, u), slope), m, all);                        \
  put(v->e + i, vmul(dy, y), m, all);
  EACH(v->n, BODY);
#undef BODY
}

// b += s0 a
void NAME(axpy)(const vec_args *v) {
  vf f = vset(v->s[0]);
#define BODY(i, m, all) \
  put(v->b + i, vfma(f, get(v->a + i, m, all), get(v->b + i, m, all)), m, all);
  EACH(v->n, BODY);
#undef BODY
}

// c = a + b
void NAME(add)(const vec_args *v) {
#define BODY(i, m, all) \
  put(v->c + i, vadd(get(v->a + i, m, all), get(v->b + i, m, all)), m, all);
  EACH(v->n, BODY);
#undef BODY
}

// b = s0 a
void NAME(scale)(const vec_args *v) {
  vf f = vset(v->s[0]);
#define BODY(i, m, all) put(v->b + i, vmul(f, get(v->a + i, m, all)), m, all);
  EACH(v->n, BODY);
#undef BODY
}

// b = a, where a holds bf16 numbers. The last ones, too few for a vector, go one by one: there are no
// masked loads of 16 bits everywhere.
void NAME(widen)(const vec_args *v) {
  const unsigned short *from = (const unsigned short *)v->a;
  int *to = (int *)v->b;
  long i = 0, n = v->n;
  for (; i + W <= n; i += W) store((float *)to + i, loadh(from + i));
#pragma clang loop vectorize(disable) unroll(disable)
  for (; i < n; i++) to[i] = from[i] << 16;
}

// b = a, rounded to bf16 numbers: to nearest, ties to even; a NaN stays one.
void NAME(narrow)(const vec_args *v) {
  const unsigned *from = (const unsigned *)v->a;
  unsigned short *to = (unsigned short *)v->b;
  long i = 0, n = v->n;
  for (; i + W <= n; i += W) storeh(to + i, load((const float *)from + i));
#pragma clang loop vectorize(disable) unroll(disable)
  for (; i < n; i++) {
    unsigned x = from[i], nan = (x & 0x7fffffff) > 0x7f800000;
    to[i] = (nan ? x | 0x400000 : x + 0x7fff + (x >> 16 & 1)) >> 16;
  }
}

// sum of a b
void NAME(dot)(vec_args *v) {
  vd sum = dzero();
#define BODY(i, m, all) sum = dfma(sum, get(v->a + i, m, all), get(v->b + i, m, all));
  EACH(v->n, BODY);
#undef BODY
  v->sum = dreduce(sum);
}

// c = s0 a b
void NAME(scaleMul)(const vec_args *v) {
  vf f = vset(v->s[0]);
#define BODY(i, m, all) \
  put(v->c + i, vmul(vmul(f, get(v->a + i, m, all)), get(v->b + i, m, all)), m, all);
  EACH(v->n, BODY);
#undef BODY
}

// sum of a b c
void NAME(dot3)(vec_args *v) {
  vd sum = dzero();
#define BODY(i, m, all)                                                  \
  sum = dfma(sum, vmul(get(v->a + i, m, all), get(v->b + i, m, all)),    \
             get(v->c + i, m, all));
  EACH(v->n, BODY);
#undef BODY
  v->sum = dreduce(sum);
}

// a x, b w, c dy, s0 rstd, s1 factor -> d dx = s0 b c - s1 a, e dw += s0 a c
void NAME(rmsNormGrad)(const vec_args *v) {
  vf rstd = vset(v->s[0]), f = vset(v->s[1]);
#define BODY(i, m, all)                                                     \
  vf x = get(v->a + i, m, all), dy = vmul(rstd, get(v->c + i, m, all));     \
  put(v->d + i, vsub(vmul(dy, get(v->b + i, m, all)), vmul(f, x)), m, all); \
  put(v->e + i, vfma(x, dy, get(v->e + i, m, all)), m, all);
  EACH(v->n, BODY);
#undef BODY
}

// a x1, b x2, c cos, d sin -> a' = a cos - b sin, written to e; b' = b cos + a sin,
// written n floats after. s0 = -1 turns back, 1 forth.
void NAME(rope)(const vec_args *v) {
  vf sign = vset(v->s[0]);
  float *second = v->e + v->n;
#define BODY(i, m, all)                                             \
  vf x = get(v->a + i, m, all), y = get(v->b + i, m, all);          \
  vf c = get(v->c + i, m, all), s = vmul(sign, get(v->d + i, m, all)); \
  put(v->e + i, vsub(vmul(x, c), vmul(y, s)), m, all);              \
  put(second + i, vfma(x, s, vmul(y, c)), m, all);
  EACH(v->n, BODY);
#undef BODY
}

// a p, b g, c m, d v; s: scale of g, beta1, 1-beta1, beta2, 1-beta2, lr c1,
// c2, epsilon; sum: lr times weight decay
void NAME(adamW)(const vec_args *v) {
  vf gs = vset(v->s[0]), b1 = vset(v->s[1]), a1 = vset(v->s[2]), b2 = vset(v->s[3]);
  vf a2 = vset(v->s[4]), lr = vset(v->s[5]), c2 = vset(v->s[6]), eps = vset(v->s[7]);
  vf decay = vset((float)v->sum);
#define BODY(i, m, all)                                                    \
  vf p = get(v->a + i, m, all), g = vmul(gs, get(v->b + i, m, all));       \
  vf m1 = vfma(b1, get(v->c + i, m, all), vmul(a1, g));                    \
  vf m2 = vfma(b2, get(v->d + i, m, all), vmul(a2, vmul(g, g)));           \
  vf step = vdiv(vmul(lr, m1), vadd(vsqrt(vmul(m2, c2)), eps));            \
  put(v->a + i, vsub(vsub(p, vmul(decay, p)), step), m, all);              \
  put(v->b + i, vzero(), m, all);                                          \
  put(v->c + i, m1, m, all);                                               \
  put(v->d + i, m2, m, all);
  EACH(v->n, BODY);
#undef BODY
}

INLINE void clear_row(float *p, long n) {
  for (long j = 0; j < n; j += W) store(p + j, vzero());
}

// Of the row's vectors from j = LO to HI those that lie whole within its range
// [from, to) need no mask. What is outside of LO and HI is not computed.
#define LO(from) ((from) & ~(long)(W - 1))
#define HI(to) (((to) + W - 1) & ~(long)(W - 1))
#define INSIDE(j, from, to) ((from) <= (j) && (j) + W <= (to))

// One step of the online softmax (Milakov and Gimelshein 2018) for each row of a
// tile of scores: the weights e^(scale s - max) replace the scores, and what the
// row has summed so far is scaled to the new maximum. A row that may attend to
// nothing here is left exactly as it was.
void NAME(softmaxTile)(const tile_args *t) {
  vf scale = vset(t->scale), low = set(-__builtin_inff());
  float never = vfirst(low), one = vfirst(set(1.0f));
  for (long r = 0; r < t->rows; r++) {
    float *s = t->s + r * t->ld;
    long from = t->range[2 * r], to = t->range[2 * r + 1];
    if (from >= to) {
      clear_row(s, t->cols);
      continue;
    }
    long lo = LO(from), hi = HI(to);
    vf top = low;
    for (long j = lo; j < hi; j += W) {
      vf x = vmul(scale, load(s + j));
      top = vmax(INSIDE(j, from, to) ? x : selectm(rangem(from - j, to - j), x, low), top);
    }
    float before = t->max[r], now = vreducemax(top);
    now = now > before ? now : before;
    if (now == never) {
      clear_row(s, t->cols);
      continue;
    }
    vf max = vset(now), sum = vzero();
    clear_row(s, lo);
    for (long j = lo; j < hi; j += W) {
      vf e = vexpweight(vsub(vmul(scale, load(s + j)), max));
      if (!INSIDE(j, from, to)) e = keepm(e, rangem(from - j, to - j));
      store(s + j, e);
      sum = vadd(sum, e);
    }
    clear_row(s + hi, t->cols - hi);
    float f = one;
    if (now != before) {
      vf shrink = vexpweight(vset(before - now));
      f = vfirst(shrink);
      float *o = t->out + r * t->width;
      for (long j = 0; j < t->width; j += W) store(o + j, vmul(shrink, load(o + j)));
    }
    t->sum[r] = t->sum[r] * f + vreduceadd(sum);
    t->max[r] = now;
  }
}

// The gradient of the softmax for a tile: weights p = e^(scale s - lse) replace s,
// and scale p (dp - delta) replaces dp.
void NAME(softmaxTileGrad)(const tile_args *t) {
  vf scale = vset(t->scale);
  for (long r = 0; r < t->rows; r++) {
    float *s = t->s + r * t->ld, *dp = t->dp + r * t->ld;
    long from = t->range[2 * r], to = t->range[2 * r + 1];
    if (from >= to) {
      clear_row(s, t->cols);
      clear_row(dp, t->cols);
      continue;
    }
    long lo = LO(from), hi = HI(to);
    vf lse = vset(t->lse[r]), delta = vset(t->delta[r]);
    clear_row(s, lo);
    clear_row(dp, lo);
    for (long j = lo; j < hi; j += W) {
      vf p = vexpweight(vsub(vmul(scale, load(s + j)), lse));
      vf ds = vmul(vmul(scale, p), vsub(load(dp + j), delta));
      if (!INSIDE(j, from, to)) {
        vm m = rangem(from - j, to - j);
        p = keepm(p, m);
        ds = keepm(ds, m);
      }
      store(s + j, p);
      store(dp + j, ds);
    }
    clear_row(s + hi, t->cols - hi);
    clear_row(dp + hi, t->cols - hi);
  }
}
