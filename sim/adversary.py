"""Episodes in which somebody wants harm: setpoints drive the simulated arm into whatever there is.

The physics, the robot host and its filter are the real ones, in lockstep. Judged is only what the simulator measures:
where the arm's geoms are and how hard it touches. Five kinds of episode:

    table     down, through the table top, which the filter knows; fingers may touch it
    keep_out  into a box that the filter is told of and nothing collides with: only the filter keeps the arm out
    itself    joint targets that fold the arm into itself; in this simulator the arm does not collide with itself
    wall      a stiff thing that the filter does not know
    body      a soft thing that the filter does not know

What is touched stands on springs of known stiffness k, so that the peak of a contact can be held against the impact
prediction v·sqrt(k·m) of ISO/TS 15066 (annex A.3.6). v is the highest relative speed of the points that touch, in a
contact; m the arm's effective mass there, along the contact's normal. The same with only the normal part of the speed
is kept beside it: stricter, and no prediction where friction makes the tool dig in.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import Literal

import mujoco
import numpy as np

from reflexarc.configs.robot import RobotConfig
from reflexarc.configs.safety import NamedBox, SafetyConfig
from reflexarc.robots.host import RobotHost
from reflexarc.robots.monitor_process import PERIOD_NS as LOOK_NS
from reflexarc.safety.monitor import BLANK, Monitor
from reflexarc.sim.arm import ArmIndex, load_arm_spec
from reflexarc.sim.driver import MujocoRobot
from reflexarc.sim.scenes.collide import ARM_ONLY, NOTHING, set_arm_bits
from reflexarc.sim.scenes.table import add_table
from reflexarc.wire.messages import F64, HostRequest, Measured, Setpoint, State

Kind = Literal["table", "keep_out", "itself", "wall", "body"]
KINDS: tuple[Kind, ...] = ("table", "keep_out", "itself", "wall", "body")
STIFFNESS: dict[Kind, float] = {"table": 75_000.0, "wall": 75_000.0, "body": 10_000.0}
"""N/m: hand and fingers, and abdomen, in ISO/TS 15066, table A.3."""
THING_MASS = 0.6
"""kg: that of a hand in ISO/TS 15066, table A.3."""
DAMPING = 0.2
"""Of the thing on its springs, as a share of the critical: the impact prediction is that of a spring alone, and at 1
the damper's force, v·2·sqrt(k·0.6 kg), exceeds it wherever the arm's effective mass is below 2.4 kg."""
THING_RADIUS = 0.08
CLEAR = 0.03
"""m between the arm and the thing at first."""
SECONDS = 3.0
APART_S = 0.1
"""A contact is over when nothing has touched for so long; what bounces is one contact."""
WINDOW_S = 0.5
"""Contact that lasts at least so long is sustained (ISO/TS 15066: quasi-static)."""
STEP_S = 0.0025
RESTING = ("ready", "off", "protective_stop", "e_stop")


@dataclasses.dataclass(frozen=True, slots=True)
class Attack:
    """What one episode did. Lengths m, forces N, speeds m/s.

    penetration: deepest into what the arm must not enter, 0 if never. sustained: the highest force that was not fallen
    below for `WINDOW_S`, on hand and fingers, which the wrist sensor feels; sustained_links: on the links before it,
    which only the joints' torques tell of. peak, predicted, speed: of the contact whose peak was highest beside its
    v·sqrt(k·m), or beside the transient ceiling where that is more: a slow contact is a press, which is bounded so.
    excess: that ratio; strict: the worst such ratio with the normal part of the speed alone. by: the geom of the arm
    that it was. stops: of the host. trips: why the independent monitor, which watches beside it, would have stopped the
    arm, each time; rules: what limited it, how often.
    """

    kind: Kind
    seed: int
    penetration: float
    sustained: float
    sustained_links: float
    peak: float
    predicted: float
    speed: float
    excess: float
    strict: float
    by: str
    contacts: int
    stops: int
    trips: list[str]
    rules: dict[str, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Felt:
    """One point of contact. force: (3,) N on the arm. point: (3,) m. normal: (3,) towards the arm. geom: of the arm."""

    force: F64
    point: F64
    normal: F64
    geom: int


class Arena:
    """One robot, its limits, and one kind of thing to be driven into."""

    def __init__(self, kind: Kind, robot: RobotConfig, safety: SafetyConfig) -> None:
        self.kind = kind
        self.robot = robot
        self.keep_out = np.array([[0.35, 0.2, 0.02], [0.65, 0.4, 0.6]])
        if kind == "keep_out":
            lower, upper = (tuple(float(v) for v in row) for row in self.keep_out)
            box = NamedBox(name="forbidden", lower=lower, upper=upper, source="an attack of the tests")  # type: ignore[arg-type]
            safety = safety.model_copy(update={"keep_out": (*safety.keep_out, box)})
        self.safety = safety
        self.transient = safety.force_ceiling * safety.contact.transient_factor
        spec = load_arm_spec(robot)
        set_arm_bits(spec)
        add_table(spec)
        spec.option.timestep = STEP_S
        table = next(geom for geom in spec.geoms if geom.name == "table")
        if kind == "table":  # the spring stands for it; the plane is only measured against
            table.contype = table.conaffinity = 0
        if kind in STIFFNESS:
            _add_thing(spec, kind)
        elif kind == "keep_out":
            low, high = self.keep_out
            spec.worldbody.add_geom(
                name="keep_out",
                type=mujoco.mjtGeom.mjGEOM_BOX,
                pos=(low + high) / 2,
                size=(high - low) / 2,
                **NOTHING,
            )
        spec.compile()
        self.model = mujoco.MjModel.from_xml_string(spec.to_xml())
        self.data = mujoco.MjData(self.model)
        self.index = ArmIndex.find(self.model, robot)
        self._table = self.model.geom("table").id
        self.thing = self.model.geom("thing").id if kind in STIFFNESS else -1
        bodies = [self.model.geom_bodyid[g] for g in range(self.model.ngeom)]
        base = self.model.body(robot.base_body).id
        arm = [
            g
            for g in range(self.model.ngeom)
            if bodies[g] > base and self.model.body_rootid[bodies[g]] == self.model.body_rootid[base]
        ]
        fingers = [g for g in arm if "finger" in (self.model.body(bodies[g]).name or "")]
        self.arm = [g for g in arm if g not in fingers and self._links(bodies[g]) >= 2]
        self.fingers = fingers
        self.all = arm
        hand = self.model.site_bodyid[self.index.wrist]
        self.felt_by_wrist = [g for g in arm if bodies[g] >= hand]
        self.place(np.array(robot.home))
        self.pairs = [
            (a, b)
            for i, a in enumerate(arm)
            for b in arm[i + 1 :]
            if self._links(bodies[b]) - self._links(bodies[a]) >= 3 and self._distance(a, b) > 0.02
        ]

    def place(self, position: F64) -> None:
        """Lay everything out anew, the arm at rest at (n,) rad."""
        mujoco.mj_resetData(self.model, self.data)
        self.index.place(self.model, self.data, position, 1.0)
        mujoco.mj_forward(self.model, self.data)

    def move_thing(self, rng: np.random.Generator) -> None:
        """Stand it somewhere near the hand, if there is one; the table stays where it is."""
        while self.kind in ("wall", "body"):
            way = rng.normal(size=3)
            way /= np.linalg.norm(way)
            self.model.body("thing").pos[:] = self.tcp + way * (THING_RADIUS + rng.uniform(0.05, 0.3))
            mujoco.mj_forward(self.model, self.data)
            if min(self._distance(geom, self.thing) for geom in self.all) > CLEAR:
                return

    def step(self, control: F64) -> None:
        """One physics step."""
        self.data.ctrl[:] = control
        mujoco.mj_step(self.model, self.data)

    @property
    def tcp(self) -> F64:
        """(3,) m."""
        return np.array(self.data.site_xpos[self.index.tcp])

    def jacobian(self) -> F64:
        """(3, n) m/rad of the TCP."""
        found = np.zeros((3, self.model.nv))
        mujoco.mj_jacSite(self.model, self.data, found, None, self.index.tcp)
        return found[:, self.index.dof]

    def penetration(self) -> float:
        """Metres that the arm is inside what it must not enter."""
        point, found = self.tcp, 0.0
        low, high = np.array(self.safety.workspace.lower), np.array(self.safety.workspace.upper)
        found = max(found, float(np.max(np.maximum(low - point, point - high))))
        if self.kind == "table":
            found = max([found, *(-self._distance(g, self._table) for g in self.arm)])
        elif self.kind == "keep_out":
            box = self.model.geom("keep_out").id
            found = max([found, *(-self._distance(g, box) for g in self.all)])
        elif self.kind == "itself":
            found = max([found, *(-self._distance(a, b) for a, b in self.pairs)])
        return max(found, 0.0)

    def felt(self) -> list[Felt]:
        """What presses between the arm and the thing now."""
        found, wrench = [], np.zeros(6)
        for i in range(self.data.ncon):
            contact = self.data.contact[i]
            if self.thing not in contact.geom:
                continue
            mujoco.mj_contactForce(self.model, self.data, i, wrench)
            if wrench[0] > 0:
                # MuJoCo's normal points from the first geom to the second; ours from the thing to the arm.
                first = int(contact.geom[0] == self.thing)
                normal = np.array(contact.frame[:3]) * (1.0 if first else -1.0)
                push = contact.frame.reshape(3, 3).T @ wrench[:3] * (1.0 if first else -1.0)
                found.append(Felt(push, np.array(contact.pos), normal, int(contact.geom[first])))
        return found

    def impact(self, felt: Felt, velocity: F64) -> tuple[float, float, float]:
        """Relative speed of arm and thing at joint velocities (nv,) and its part into the thing, m/s; effective mass of
        the arm there, kg: 1 / (n·J·M⁻¹·Jᵀ·n)."""
        own, its = np.zeros((3, self.model.nv)), np.zeros((3, self.model.nv))
        mujoco.mj_jac(self.model, self.data, own, None, felt.point, int(self.model.geom_bodyid[felt.geom]))
        mujoco.mj_jac(self.model, self.data, its, None, felt.point, int(self.model.geom_bodyid[self.thing]))
        mass = np.zeros((self.model.nv, self.model.nv))
        mujoco.mj_fullM(self.model, self.data, mass)
        dof = self.index.dof
        row = felt.normal @ own
        mobility = float(row[dof] @ np.linalg.solve(mass[np.ix_(dof, dof)], row[dof]))
        relative = (own - its) @ velocity
        into = max(0.0, float(-(felt.normal @ relative)))
        return float(np.linalg.norm(relative)), into, 1 / mobility if mobility > 1e-9 else 0.0

    def _links(self, body: int) -> int:
        depth = 0
        while body:
            depth += 1
            body = int(self.model.body_parentid[body])
        return depth

    def _distance(self, a: int, b: int) -> float:
        return float(mujoco.mj_geomDistance(self.model, self.data, a, b, 0.5, None))


def attack(arena: Arena, seed: int, seconds: float = SECONDS) -> Attack:
    """One episode against `arena`, by seed."""
    rng = np.random.default_rng([seed, KINDS.index(arena.kind)])
    arena.place(np.array(arena.robot.home))
    arena.move_thing(rng)
    driver = MujocoRobot(arena, arena.robot)
    driver.connect()
    host = RobotHost(driver, arena.robot, arena.safety, "virtual")
    host.restart(0)
    villain = _Villain(arena, rng)
    scale = _Scale(arena)
    tick_ns = arena.robot.tick_ns
    physics = round(tick_ns * 1e-9 / STEP_S)
    watch = _Watch(arena)
    deepest, stops, safety = 0.0, 0, "ready"
    rules: collections.Counter[str] = collections.Counter()
    for tick in range(round(seconds * 1e9) // tick_ns):
        now = tick * tick_ns
        if safety in RESTING:
            stops += safety == "protective_stop"
            for action in ("reset", "enable"):
                host.request(HostRequest(t_ns=now, clock="virtual", action=action, seq=tick, source="attack"))
        result = host.tick(now, villain.setpoint(now, safety))
        if result.report is not None:
            rules.update({item.rule for item in result.report.interventions})
        safety = result.state.safety
        watch.look(result.state)
        for _ in range(physics):
            scale.before()
            driver.advance(1)
            scale.after()
        deepest = max(deepest, arena.penetration())
    driver.close()
    worst = scale.worst
    return Attack(
        kind=arena.kind,
        seed=seed,
        penetration=deepest,
        sustained=_sustained(np.array(scale.forces), round(WINDOW_S / STEP_S)),
        sustained_links=_sustained(np.array(scale.link_forces), round(WINDOW_S / STEP_S)),
        peak=worst.peak,
        predicted=worst.predicted,
        speed=worst.speed,
        excess=worst.excess(arena.transient),
        strict=scale.strict,
        by=worst.by,
        contacts=scale.contacts,
        stops=stops,
        trips=watch.trips,
        rules=dict(rules),
    )


class _Watch:
    """The independent monitor beside the host; it sees what is measured, and here stops nothing."""

    def __init__(self, arena: Arena) -> None:
        self._monitor = Monitor(arena.robot, arena.safety)
        self._sight, self._reason, self._seen_ns = BLANK, "", -LOOK_NS
        self.trips: list[str] = []

    def look(self, state: State) -> None:
        """At the monitor's own rate."""
        if state.t_ns < self._seen_ns + LOOK_NS:
            return
        self._seen_ns = state.t_ns
        reading = Measured(
            t_ns=state.t_state_ns,
            joint_position=state.joint_position,
            joint_velocity=state.joint_velocity,
            joint_effort=state.joint_effort,
            wrench_tcp=state.wrench_tcp,
            gripper=state.gripper,
        )
        before = self._reason
        self._sight, self._reason = self._monitor.see(self._sight, reading, state, state.t_ns)
        if self._reason and not before:
            self.trips.append(self._reason)


@dataclasses.dataclass(slots=True)
class _Touch:
    speed: float = 0.0
    predicted: float = 0.0
    normal: float = 0.0
    peak: float = 0.0
    by: str = ""

    def excess(self, ceiling: float) -> float:
        """Peak force over what may be expected of this contact."""
        return self.peak / max(self.predicted, ceiling)


class _Scale:
    """Weighs every contact with the thing, physics step by physics step: the force on it in all, friction included."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._velocity = np.zeros(arena.model.nv)
        self._touch = _Touch()
        self._apart = round(APART_S / STEP_S)
        self._since = self._apart
        self.worst = _Touch()
        self.strict = 0.0
        self.contacts = 0
        self.forces: list[float] = []
        self.link_forces: list[float] = []

    def before(self) -> None:
        """Remember how fast everything moves."""
        self._velocity = np.array(self._arena.data.qvel)

    def after(self) -> None:
        """Read the force, and what a new touch came with."""
        if self._arena.thing < 0:
            return
        felt = self._arena.felt()
        force = _sum(felt)
        beyond = self._arena.felt_by_wrist
        self.forces.append(_sum([item for item in felt if item.geom in beyond]))
        self.link_forces.append(_sum([item for item in felt if item.geom not in beyond]))
        if not felt:
            self._since += 1
            return
        if self._since >= self._apart:
            self.contacts += 1
            self._touch = _Touch()
        self._since = 0
        for item in felt:
            self._meet(item)
        self._touch.peak = max(self._touch.peak, force)
        ceiling = self._arena.transient
        self.strict = max(self.strict, self._touch.peak / max(self._touch.normal, ceiling))
        if self._touch.excess(ceiling) > self.worst.excess(ceiling):
            self.worst = dataclasses.replace(self._touch)

    def _meet(self, felt: Felt) -> None:
        """A point of the arm moves into the thing: what peak is to be expected of that."""
        speed, into, mass = self._arena.impact(felt, self._velocity)
        force = float(np.sqrt(STIFFNESS[self._arena.kind] * mass))
        touch = self._touch
        touch.normal = max(touch.normal, into * force)
        if speed * force >= touch.predicted:
            touch.speed, touch.predicted = speed, speed * force
            touch.by = self._arena.model.geom(felt.geom).name


def _sum(felt: list[Felt]) -> float:
    """N of all these contacts together."""
    return float(np.linalg.norm(sum((item.force for item in felt), np.zeros(3))))


class _Villain:
    """Chooses setpoints: straight at the target as fast as it goes, bang-bang, noise, and joints at random."""

    def __init__(self, arena: Arena, rng: np.random.Generator) -> None:
        self._arena = arena
        self._rng = rng
        self._seq = 0
        self._until = 0
        self._fresh = True
        self._manner = "push"
        self._goal = np.zeros(3)
        self._joints: F64 = np.array(arena.robot.home)
        self._lower = np.array([joint.lower for joint in arena.robot.joints])
        self._upper = np.array([joint.upper for joint in arena.robot.joints])

    def setpoint(self, now_ns: int, safety: str) -> Setpoint:
        """The next one."""
        if now_ns >= self._until:
            self._choose(now_ns)
        here = np.array(self._arena.data.qpos[self._arena.index.qpos])
        asked, velocity = here.copy(), np.zeros_like(here)
        if safety in ("active", "reduced", "recovery") and not self._fresh:
            asked, velocity = self._wish(here)
        # The first one after an enable must be near, or it is refused and nothing would happen.
        self._fresh = safety not in ("active", "reduced", "recovery", "hold")
        self._seq += 1
        return Setpoint(
            t_ns=now_ns,
            clock="virtual",
            seq=self._seq,
            t_due_ns=now_ns,
            joint_position=asked,
            joint_velocity=velocity,
            gripper=float(self._rng.random() > 0.5),
            source="teleop",
        )

    def _choose(self, now_ns: int) -> None:
        rng = self._rng
        self._until = now_ns + int(rng.integers(100, 900)) * 1_000_000
        manners = (
            ("joints", "joints", "fold")
            if self._arena.kind == "itself"
            else ("push", "push", "push", "joints")
        )
        self._manner = str(rng.choice(manners))
        self._goal[:] = self._target() + rng.normal(0, 0.03, 3)
        corners = np.array(self._lower)
        far = rng.random(self._lower.size) > 0.5
        corners[far] = self._upper[far]
        anywhere: F64 = rng.uniform(self._lower, self._upper)
        self._joints = anywhere if self._manner == "joints" else corners

    def _target(self) -> F64:
        arena = self._arena
        if arena.kind == "table":
            return np.array([*arena.tcp[:2], -0.3])
        if arena.kind == "keep_out":
            middle: F64 = arena.keep_out.mean(axis=0)
            return middle
        if arena.kind in STIFFNESS:
            thing = np.array(arena.data.body("thing").xpos)
            beyond: F64 = thing + 0.5 * (thing - arena.tcp)
            return beyond
        return np.array([0.0, 0.0, 0.4])

    def _wish(self, here: F64) -> tuple[F64, F64]:
        if self._manner != "push":
            way = self._joints - here
        else:
            move = self._goal - self._arena.tcp
            jacobian = self._arena.jacobian()
            way = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-4 * np.eye(3), move)
        length = float(np.abs(way).max())
        velocity = way / length * float(self._rng.choice([0.5, 2.0, 9.0])) if length > 0 else way
        return here + way * float(self._rng.choice([0.2, 1.0, 3.0])), velocity


def _sustained(forces: F64, window: int) -> float:
    """The highest force that was not fallen below for `window` ticks."""
    if len(forces) < window:
        return 0.0
    return float(np.lib.stride_tricks.sliding_window_view(forces, window).min(axis=1).max())


def _add_thing(spec: mujoco.MjSpec, kind: Kind) -> None:
    """Something on springs: the table top goes up and down, a ball goes anywhere."""
    body = spec.worldbody.add_body(name="thing")
    axes = ((0, 0, 1),) if kind == "table" else ((1, 0, 0), (0, 1, 0), (0, 0, 1))
    for axis in axes:
        body.add_joint(
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=axis,
            stiffness=STIFFNESS[kind],
            damping=2 * DAMPING * np.sqrt(STIFFNESS[kind] * THING_MASS),
        )
    flat = kind == "table"
    body.add_geom(
        name="thing",
        type=mujoco.mjtGeom.mjGEOM_BOX if flat else mujoco.mjtGeom.mjGEOM_SPHERE,
        size=[1.5, 1.5, 0.02] if flat else [THING_RADIUS, 0, 0],
        pos=[0, 0, -0.02] if flat else [0, 0, 0],
        mass=THING_MASS,
        # The contact itself is hard; the springs are what gives.
        solref=[0.005, 1.0],
        solimp=[0.99, 0.999, 0.001, 0.5, 2.0],
        gap=0.0,
        **ARM_ONLY,
    )
    body.gravcomp = 1.0
