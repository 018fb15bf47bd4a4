"""Rotations and poses, in NumPy alone: what several packages need and none should write twice.

Quaternions are `[w x y z]` (4,) unit, rotation vectors (3,) rad, rotation matrices (3, 3), poses
`[x y z qw qx qy qz]` (7,) metres, all float64. A rotation acts from the left: `multiply(a, b)` turns by `b` first and
then by `a`, both about axes of the base frame. Every function returns a new array and takes one rotation at a
time. Sources: J. Solà, "Quaternion kinematics for the error-state Kalman filter" (2017), sections 1-2 (products,
exp, log), 4.3 (Jacobian of SO(3)); S. Shepperd, "Quaternion from rotation matrix" (1978).
"""

from __future__ import annotations

import math

import numpy as np

from reflexarc.wire.messages import F64

_SMALL = 1e-9
"""rad: below this angle, first terms of the series are exact to double precision."""


def identity_pose() -> F64:
    """The pose (7,) of the base frame itself."""
    return np.array([0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0])


def normalize(quat: F64) -> F64:
    """`quat` scaled to length 1. Raises ZeroDivisionError if all four are zero."""
    w, x, y, z = quat.tolist()
    scale = 1.0 / math.sqrt(w * w + x * x + y * y + z * z)
    return np.array([w * scale, x * scale, y * scale, z * scale])


def multiply(a: F64, b: F64) -> F64:
    """The rotation `b` followed by the rotation `a`: quaternion product a·b, normalised."""
    aw, ax, ay, az = a.tolist()
    bw, bx, by, bz = b.tolist()
    w = aw * bw - ax * bx - ay * by - az * bz
    x = aw * bx + ax * bw + ay * bz - az * by
    y = aw * by - ax * bz + ay * bw + az * bx
    z = aw * bz + ax * by - ay * bx + az * bw
    scale = 1.0 / math.sqrt(w * w + x * x + y * y + z * z)
    return np.array([w * scale, x * scale, y * scale, z * scale])


def conjugate(quat: F64) -> F64:
    """The opposite rotation."""
    return np.array([quat[0], -quat[1], -quat[2], -quat[3]])


def rotate(quat: F64, vector: F64) -> F64:
    """`vector` (3,) turned by `quat`."""
    w, x, y, z = quat.tolist()
    a, b, c = vector.tolist()
    # v + 2 u × (u × v + w v), with u = (x, y, z)
    p, q, r = y * c - z * b + w * a, z * a - x * c + w * b, x * b - y * a + w * c
    return np.array([a + 2 * (y * r - z * q), b + 2 * (z * p - x * r), c + 2 * (x * q - y * p)])


def exp(rotvec: F64) -> F64:
    """The quaternion of a rotation vector."""
    x, y, z = rotvec.tolist()
    angle = math.sqrt(x * x + y * y + z * z)
    scale = 0.5 if angle < _SMALL else math.sin(0.5 * angle) / angle
    return np.array([math.cos(0.5 * angle), x * scale, y * scale, z * scale])


def log(quat: F64) -> F64:
    """The shortest rotation vector of a unit quaternion; its length is in [0, π]."""
    w, x, y, z = quat.tolist()
    if w < 0.0:
        w, x, y, z = -w, -x, -y, -z
    sine = math.sqrt(x * x + y * y + z * z)
    scale = 2.0 if sine < _SMALL else 2.0 * math.atan2(sine, w) / sine
    return np.array([x * scale, y * scale, z * scale])


def difference(a: F64, b: F64) -> F64:
    """The rotation vector (3,) that turns `b` into `a`, in the base frame: `multiply(exp(dr), b)` is `a`."""
    return log(multiply(a, conjugate(b)))


def slerp(a: F64, b: F64, fraction: float) -> F64:
    """The rotation at `fraction` of the shortest way from `a` (0) to `b` (1), at constant angular velocity."""
    return multiply(exp(fraction * difference(b, a)), a)


def cross(a: F64, b: F64) -> F64:
    """a × b of two vectors (3,); ten times as fast as `numpy.cross`, which is made for stacks of them."""
    ax, ay, az = a.tolist()
    bx, by, bz = b.tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def to_matrix(quat: F64) -> F64:
    """The rotation matrix (3, 3) of a unit quaternion."""
    w, x, y, z = quat.tolist()
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def from_matrix(matrix: F64) -> F64:
    """The quaternion (w ≥ 0) of a rotation matrix (3, 3), dividing by the largest of its four candidates."""
    (a, b, c), (d, e, f), (g, h, i) = ((float(v) for v in row) for row in matrix)
    candidates = (
        (1 + a + e + i, (1 + a + e + i, h - f, c - g, d - b)),
        (1 + a - e - i, (h - f, 1 + a - e - i, b + d, c + g)),
        (1 - a + e - i, (c - g, b + d, 1 - a + e - i, f + h)),
        (1 - a - e + i, (d - b, c + g, f + h, 1 - a - e + i)),
    )
    quat = normalize(np.array(max(candidates)[1]))
    return -quat if quat[0] < 0 else quat


def left_jacobian_inverse(rotvec: F64, spin: F64) -> F64:
    """The rate of the rotation vector `rotvec` (3,) while the rotation turns at `spin` (3,) rad/s, base frame.

    With R(t) = exp(r(t))·R0 and angular velocity ω: dr/dt = J⁻¹(r)·ω. |r| must stay below 2π.
    """
    angle = math.hypot(*rotvec.tolist())
    if angle < 1e-4:  # two terms of the series: the third is below 1e-9 of spin
        return spin - 0.5 * cross(rotvec, spin) + cross(rotvec, cross(rotvec, spin)) / 12.0
    factor = 1.0 / (angle * angle) - 0.5 / (angle * math.tan(0.5 * angle))
    turned = cross(rotvec, spin)
    result: F64 = spin - 0.5 * turned + factor * cross(rotvec, turned)
    return result


def left_jacobian(rotvec: F64, rate: F64) -> F64:
    """The angular velocity (3,) rad/s, base frame, of R(t) = exp(r(t))·R0 while r changes at `rate` (3,)."""
    angle = math.hypot(*rotvec.tolist())
    turned = cross(rotvec, rate)
    if angle < 1e-4:
        return rate + 0.5 * turned + cross(rotvec, turned) / 6.0
    first = (1.0 - math.cos(angle)) / (angle * angle)
    second = (angle - math.sin(angle)) / (angle * angle * angle)
    result: F64 = rate + first * turned + second * cross(rotvec, turned)
    return result


def pose(position: F64, quat: F64) -> F64:
    """The pose (7,) of a position (3,) and a quaternion (4,)."""
    return np.concatenate([position, quat])


def compose(a: F64, b: F64) -> F64:
    """The pose (7,) of `b`, given in the frame `a`, in the frame that `a` is given in: T_ac = T_ab · T_bc."""
    return np.concatenate([a[:3] + rotate(a[3:], b[:3]), multiply(a[3:], b[3:])])


def inverse(a: F64) -> F64:
    """The pose (7,) of the frame that `a` is given in, seen from `a`."""
    turn = conjugate(a[3:])
    return np.concatenate([-rotate(turn, a[:3]), turn])


def apply_delta(start: F64, delta: F64) -> F64:
    """`start` (7,) moved by a canonical action `[dx dy dz drx dry drz]` (6,): p + dp and exp(dr)·R, base frame."""
    return np.concatenate([start[:3] + delta[:3], multiply(exp(delta[3:6]), start[3:])])


def delta_between(start: F64, end: F64) -> F64:
    """The canonical action (6,) that moves `start` (7,) to `end` (7,); `apply_delta` undoes it."""
    return np.concatenate([end[:3] - start[:3], difference(end[3:], start[3:])])
