"""The distillation losses in float64 numpy with plain loops, written from the papers by one who had not seen the code.

Where a paper leaves a choice open, the docstring says which was made.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Whole = NDArray[Any]  # ids, labels, masks, places: whole numbers or bool


def dot(a: Sequence[float] | Array, b: Sequence[float] | Array) -> float:
    """Inner product of two vectors, summed one entry at a time."""
    assert len(a) == len(b)
    total = 0.0
    for x, y in zip(a, b, strict=True):
        total += float(x) * float(y)
    return total


def normalise(a: Array) -> Array:
    """Vector divided by its L2 norm; a zero vector stays zero."""
    norm = math.sqrt(dot(a, a))
    if norm == 0.0:
        return np.zeros(len(a), dtype=np.float64)
    return np.asarray(a, dtype=np.float64) / norm


def cosine(a: Array, b: Array) -> float:
    """Cosine of two vectors; 0 if one of them is zero."""
    return dot(normalise(a), normalise(b))


def log_softmax(logits: Sequence[float] | Array) -> list[float]:
    """Log of the softmax of a list of numbers, with the largest taken out first."""
    top = max(float(x) for x in logits)
    total = 0.0
    for x in logits:
        total += math.exp(float(x) - top)
    return [float(x) - top - math.log(total) for x in logits]


def mse(a: Array, b: Array) -> float:
    """Mean over ALL entries of the squared difference of two (B, h) arrays."""
    assert a.shape == b.shape
    assert a.ndim == 2
    total = 0.0
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            total += (float(a[i, j]) - float(b[i, j])) ** 2
    return total / (len(a) * len(a[0]))


def masked_mean(states: Array, mask: Whole) -> Array:
    """Mean over the real tokens (mask not 0) of (B, T, h); an input with none gives zeros."""
    batch, length, width = states.shape
    assert mask.shape == (batch, length)
    out = np.zeros((batch, width), dtype=np.float64)
    for i in range(batch):
        count = 0
        for t in range(length):
            if mask[i, t]:
                count += 1
                for c in range(width):
                    out[i, c] += float(states[i, t, c])
        out[i] /= max(count, 1)
    return out


def simcse(view1: Array, view2: Array, temperature: float) -> float:
    """DistilFace (arXiv 2401.12472), SimCSE loss: mean_i -log(exp(cos(a_i,b_i)/t) / sum_j exp(cos(a_i,b_j)/t))."""
    assert view1.shape == view2.shape
    batch = len(view1)
    total = 0.0
    for i in range(batch):
        logits = [cosine(view1[i], view2[j]) / temperature for j in range(batch)]
        total += -log_softmax(logits)[i]
    return total / batch


def distance(metric: str, student: Array, teacher: Array) -> float:
    """EmbedDistill (arXiv 2301.12005), Eq. 7 is `l2`; `mse` and `cosine` are its usual kin; means over the batch."""
    if metric == "mse":
        return mse(student, teacher)
    total = 0.0
    for a, b in zip(student, teacher, strict=True):
        total += math.sqrt(dot(a - b, a - b)) if metric == "l2" else 1 - cosine(a, b)
    return total / len(student)


def masked_lm(logits: Array, labels: Whole) -> float:
    """BERT (arXiv 1810.04805, 3.1): -log p of the token, averaged over the places whose label is not -100."""
    total, count = 0.0, 0
    for place in np.ndindex(*labels.shape):
        if labels[place] != -100:
            total += -log_softmax(logits[place])[int(labels[place])]
            count += 1
    return total / count


def principal_components(x: Array, count: int) -> tuple[Array, Array, float]:
    """Mean, first components as rows, and the mean squared error of what they leave out (by numpy's SVD)."""
    mean = x.mean(0)
    _, values, directions = np.linalg.svd(x - mean, full_matrices=False)
    return mean, directions[:count], float((values[count:] ** 2).sum() / x.size)


def off_diagonal_cosines(vectors: Array) -> Array:
    """DistillCSE: (B, B-1) cosines of each anchor with the OTHER sentences, columns in order of j, j = i skipped."""
    batch = len(vectors)
    out = np.zeros((batch, batch - 1), dtype=np.float64)
    for i in range(batch):
        column = 0
        for j in range(batch):
            if j == i:
                continue
            out[i, column] = cosine(vectors[i], vectors[j])
            column += 1
    return out


def relation_loss_of_cosines(
    student: Array, teacher_cosines: Array, student_temperature: float, teacher_temperature: float
) -> float:
    """DistillCSE (arXiv 2310.13499), second term from given teacher cosines: mean_i -sum_j q_t(j|i) log p_s(j|i)."""
    own = off_diagonal_cosines(student)
    assert own.shape == teacher_cosines.shape
    batch, others = len(own), len(own[0])
    total = 0.0
    for i in range(batch):
        log_p = log_softmax([float(own[i, j]) / student_temperature for j in range(others)])
        log_q = log_softmax([float(teacher_cosines[i, j]) / teacher_temperature for j in range(others)])
        for j in range(others):
            total += -math.exp(log_q[j]) * log_p[j]
    return total / batch


def relation_loss(
    student: Array, teachers: Sequence[Array], student_temperature: float, teacher_temperature: float
) -> float:
    """DistillCSE (arXiv 2310.13499), second term: CE(q_t || p_s), q_t from the mean of the teachers' raw cosines."""
    batch = len(student)
    mean = np.zeros((batch, batch - 1), dtype=np.float64)
    for teacher in teachers:
        assert len(teacher) == batch
        mean += off_diagonal_cosines(teacher)
    mean /= len(teachers)
    return relation_loss_of_cosines(student, mean, student_temperature, teacher_temperature)


def groups(cosines: Array, p: float, inclusive: bool = True, slack: float = 1e-9) -> list[list[int]]:
    """DistillCSE (arXiv 2310.13499), Group-P: the positions of one anchor's cosines, cut into groups of mass p.

    Sort by cosine descending (ties keep their order), softmax of the raw cosines, cumulative sum C_m = w_1 + ... + w_m.
    inclusive=True: entry m is in group k when C_m lies in (k p, (k+1) p], so k = ceil(C_m / p) - 1.
    inclusive=False: entry m is in group k when C_(m-1) (C_0 = 0) lies in [k p, (k+1) p), so k = floor(C_(m-1) / p).
    An entry heavier than p jumps over groups: the empty ones are not listed. `slack`, in units of p, puts a sum that
    floating point moved off a boundary back on it.

    Args:
        cosines: (B-1,) the anchor's cosines with the other sentences, unsorted.
        p: mass of a group.
        inclusive: which of the two readings of the boundary.
        slack: tolerance at the boundary, in units of p.

    Returns:
        The non-empty groups, highest cosines first; inside a group, positions in descending order of cosine.
    """
    order = sorted(range(len(cosines)), key=lambda position: -float(cosines[position]))
    log_weights = log_softmax(cosines)
    out: list[list[int]] = []
    current: int | None = None
    before = 0.0
    for position in order:
        after = before + math.exp(log_weights[position])
        k = math.ceil(after / p - slack) - 1 if inclusive else math.floor(before / p + slack)
        if k != current:
            out.append([])
            current = k
        out[-1].append(position)
        before = after
    return out


def summary(states: Sequence[Array], mask: Whole, layers: Sequence[int], weight: Array, bias: Array) -> Array:
    """CoDIR (arXiv 2009.14167), summary: normalise(W [mean-pool of each chosen layer] + b); states[0] = embeddings.

    Args:
        states: hidden states, each (B, T, h); layer l is states[l], as where states[0] is the embedding output.
        mask: (B, T), not 0 at real tokens.
        layers: which states, in the order of concatenation.
        weight: (out, len(layers) * h).
        bias: (out,).

    Returns:
        (B, out), rows of norm 1.
    """
    pooled = [masked_mean(states[layer], mask) for layer in layers]
    batch = len(mask)
    out = np.zeros((batch, len(weight)), dtype=np.float64)
    for i in range(batch):
        joined: list[float] = []
        for one in pooled:
            joined.extend(float(x) for x in one[i])
        for r in range(len(weight)):
            out[i, r] = dot(weight[r], joined) + float(bias[r])
        out[i] = normalise(out[i])
    return out


def scores(
    anchor: Array, other: Array, other_bank: Array, places: Whole, negative: Whole, temperature: float
) -> list[tuple[float, list[float]]]:
    """CoDIR: per input, exp(cos/t) of the positive and of the COUNTING negatives of one side (unit vectors: cos = dot).

    Args:
        anchor: (B, d) unit vectors of one side.
        other: (B, d) unit vectors of the other side, same inputs: row i is the positive of anchor i.
        other_bank: (N, d) the other side's bank.
        places: (B, K) rows of the bank.
        negative: (B, K) bool, which of them count.
        temperature: t.

    Returns:
        One (positive, negatives) for each input.
    """
    out: list[tuple[float, list[float]]] = []
    for i in range(len(anchor)):
        positive = math.exp(dot(anchor[i], other[i]) / temperature)
        negatives: list[float] = []
        for k in range(places.shape[1]):
            if negative[i, k]:
                negatives.append(math.exp(dot(anchor[i], other_bank[int(places[i, k])]) / temperature))
        out.append((positive, negatives))
    return out


Side = list[tuple[float, list[float]]]


def nce_side(side: Side, z: float, k_pn: float) -> float:
    """CoDIR (arXiv 2009.14167), one anchor's CRD term: -[log P+/(P+ + K Pn) + sum log K Pn/(P- + K Pn)], P = exp/Z."""
    total = 0.0
    for positive, negatives in side:
        p = positive / z
        total += -math.log(p / (p + k_pn))
        for one in negatives:
            total += -math.log(k_pn / (one / z + k_pn))
    return total / len(side)


def infonce_side(side: Side) -> float:
    """CoDIR, `infonce`: -log softmax of the positive over 1+K; those not counting are left out."""
    total = 0.0
    for positive, negatives in side:
        below = positive
        for one in negatives:
            below += one
        total += -math.log(positive / below)
    return total / len(side)


def side_z(side: Side, n: int) -> float:
    """CoDIR, Z of the first batch for one anchor: n * the mean of exp(cos/t) over positives and negatives, pooled."""
    values: list[float] = []
    for positive, negatives in side:
        values += [positive, *negatives]
    total = 0.0
    for value in values:
        total += value
    return n * total / len(values)


def bank_update(row: Array, new: Array, momentum: float) -> Array:
    """CoDIR (arXiv 2009.14167), bank: one row <- normalise(momentum * row + (1 - momentum) * new)."""
    mixed = np.zeros(len(row), dtype=np.float64)
    for c in range(len(row)):
        mixed[c] = momentum * float(row[c]) + (1 - momentum) * float(new[c])
    return normalise(mixed)


def kd(student_logits: Array, teacher_logits: Array, labels: Whole, beta: float, temperature: float) -> float:
    """CoDIR (arXiv 2009.14167), first two terms: (1-beta) CE + beta T^2 KL(softmax(z_t/T) || softmax(z_s/T)), means."""
    batch, classes = len(student_logits), len(student_logits[0])
    ce = 0.0
    kl = 0.0
    for i in range(batch):
        ce += -log_softmax(student_logits[i])[int(labels[i])]
        log_s = log_softmax([float(x) / temperature for x in student_logits[i]])
        log_t = log_softmax([float(x) / temperature for x in teacher_logits[i]])
        for c in range(classes):
            kl += math.exp(log_t[c]) * (log_t[c] - log_s[c])
    return (1 - beta) * ce / batch + beta * temperature * temperature * kl / batch


def match(student_en: Array, student_xx: Array, wanted_en: Array, wanted_xx: Array, weight: float = 1.0) -> float:
    """Multi-stage (arXiv 2209.05869), stages 1 and 3: MSE(S(en), W(en)) + weight * MSE(S(xx), W(xx))."""
    return mse(student_en, wanted_en) + weight * mse(student_xx, wanted_xx)


def multilingual_contrastive(student_en: Array, student_xx: Array, teacher_en: Array, weight: float = 1.0) -> float:
    """Multi-stage (arXiv 2209.05869), stage 4: MSE(cos(T_en,T_en), cos(S_en,S_xx)) over B x B + weight * two MSEs."""
    batch = len(student_en)
    total = 0.0
    for i in range(batch):
        for j in range(batch):
            wanted = cosine(teacher_en[i], teacher_en[j])
            got = cosine(student_en[i], student_xx[j])
            total += (got - wanted) ** 2
    relation = total / (batch * batch)
    return relation + weight * (mse(student_en, teacher_en) + mse(student_xx, teacher_en))


def gradient(function: Callable[[Array], float], x: Array, eps: float = 1e-6) -> Array:
    """Central difference (f(x + eps e) - f(x - eps e)) / (2 eps) for every entry of x (no paper)."""
    base = np.array(x, dtype=np.float64)
    out = np.zeros_like(base)
    for place in np.ndindex(*base.shape):
        up = base.copy()
        up[place] += eps
        down = base.copy()
        down[place] -= eps
        out[place] = (function(up) - function(down)) / (2 * eps)
    return out
