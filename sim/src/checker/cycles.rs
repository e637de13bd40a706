//! Cycles in a directed graph: where they are, and a short one to show.
//!
//! Plain graph theory over node numbers. Nothing here recurses, so the depth
//! of a history cannot exhaust the stack. It refuses to promise the shortest
//! cycle of a huge component: the search for one is bounded.

use std::collections::VecDeque;

/// How many edges the search for the shortest cycle of a component follows
/// before it makes do with a short one.
const SEARCH_BUDGET: usize = 1_000_000;

/// How many starting points of a large component are tried after that.
const SAMPLES: usize = 8;

const UNVISITED: usize = usize::MAX;

/// The strongly connected components with more than one node, each sorted,
/// in the order of their smallest nodes (Tarjan 1972, with an explicit stack).
pub(super) fn cyclic_components(adjacency: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut search = Tarjan {
        index: vec![UNVISITED; adjacency.len()],
        low_link: vec![0; adjacency.len()],
        on_stack: vec![false; adjacency.len()],
        stack: Vec::new(),
        next_index: 0,
        components: Vec::new(),
    };
    for root in 0..adjacency.len() {
        if search.index[root] == UNVISITED {
            search.visit_from(root, adjacency);
        }
    }
    search.components.sort_unstable();
    search.components
}

struct Tarjan {
    index: Vec<usize>,
    low_link: Vec<usize>,
    on_stack: Vec<bool>,
    stack: Vec<usize>,
    next_index: usize,
    components: Vec<Vec<usize>>,
}

impl Tarjan {
    fn visit_from(&mut self, root: usize, adjacency: &[Vec<usize>]) {
        // Each frame is a node and the number of its edges already followed.
        let mut frames = vec![(root, 0)];
        self.enter(root);
        while let Some(frame) = frames.last_mut() {
            let node = frame.0;
            if let Some(&target) = adjacency[node].get(frame.1) {
                frame.1 += 1;
                if self.index[target] == UNVISITED {
                    self.enter(target);
                    frames.push((target, 0));
                } else if self.on_stack[target] {
                    self.low_link[node] = self.low_link[node].min(self.index[target]);
                }
            } else {
                frames.pop();
                if let Some(&(parent, _)) = frames.last() {
                    self.low_link[parent] = self.low_link[parent].min(self.low_link[node]);
                }
                if self.low_link[node] == self.index[node] {
                    self.close_component(node);
                }
            }
        }
    }

    fn enter(&mut self, node: usize) {
        self.index[node] = self.next_index;
        self.low_link[node] = self.next_index;
        self.next_index += 1;
        self.stack.push(node);
        self.on_stack[node] = true;
    }

    fn close_component(&mut self, root: usize) {
        let mut component = Vec::new();
        while let Some(member) = self.stack.pop() {
            self.on_stack[member] = false;
            component.push(member);
            if member == root {
                break;
            }
        }
        if component.len() > 1 {
            component.sort_unstable();
            self.components.push(component);
        }
    }
}

/// A short cycle within a strongly connected component, as the nodes in order.
/// The shortest one, unless the component is so large that the budget runs out.
/// Empty only if the component has no cycle.
///
/// Looks for cycles of up to two nodes from everywhere, then of up to four, and
/// so on: in a component that holds half the history most starting points lie
/// on long cycles only, and looking far from each would use up the budget.
pub(super) fn short_cycle(adjacency: &[Vec<usize>], component: &[usize]) -> Vec<usize> {
    let mut search = CycleSearch {
        adjacency,
        parent: vec![UNVISITED; adjacency.len()],
        member: vec![false; adjacency.len()],
        followed: 0,
    };
    for &node in component {
        search.member[node] = true;
    }
    let mut longest = 2;
    while longest < 2 * component.len() && search.followed < SEARCH_BUDGET {
        let mut best: Option<Vec<usize>> = None;
        for &start in component {
            if search.followed >= SEARCH_BUDGET {
                break;
            }
            // Once there is a cycle, only a shorter one is of interest.
            let limit = best.as_ref().map_or(longest, |best| best.len() - 1);
            best = search.through(start, limit).or(best);
        }
        if let Some(best) = best {
            return best;
        }
        longest *= 2;
    }
    search.sampled(component)
}

struct CycleSearch<'graph> {
    adjacency: &'graph [Vec<usize>],
    /// The node each visited node was first met from.
    parent: Vec<usize>,
    member: Vec<bool>,
    followed: usize,
}

impl CycleSearch<'_> {
    /// The shortest cycle through some of the nodes, then through those of the
    /// cycle found: what closes a cycle is on it, and often closes a shorter
    /// one as well.
    fn sampled(&mut self, component: &[usize]) -> Vec<usize> {
        let stride = component.len().div_ceil(SAMPLES).max(1);
        let mut best: Vec<usize> = Vec::new();
        for &start in component.iter().step_by(stride) {
            let limit = if best.is_empty() { component.len() } else { best.len() - 1 };
            best = self.through(start, limit).unwrap_or(best);
        }
        let stride = best.len().div_ceil(SAMPLES).max(1);
        for start in best.clone().into_iter().step_by(stride) {
            best = self.through(start, best.len() - 1).unwrap_or(best);
        }
        best
    }

    /// The shortest cycle through `start` if it has at most `limit` nodes, by
    /// breadth-first search.
    fn through(&mut self, start: usize, limit: usize) -> Option<Vec<usize>> {
        let mut visited = vec![start];
        // Nodes with the length of the path that ends at them.
        let mut queue = VecDeque::from([(start, 1)]);
        self.parent[start] = start;
        let mut last = None;
        'search: while let Some((node, length)) = queue.pop_front() {
            if length > limit {
                break;
            }
            for &target in &self.adjacency[node] {
                self.followed += 1;
                if target == start {
                    last = Some(node);
                    break 'search;
                }
                if self.member[target] && self.parent[target] == UNVISITED {
                    self.parent[target] = node;
                    visited.push(target);
                    queue.push_back((target, length + 1));
                }
            }
        }
        let cycle = last.map(|last| self.path(start, last));
        for node in visited {
            self.parent[node] = UNVISITED;
        }
        cycle
    }

    fn path(&self, start: usize, end: usize) -> Vec<usize> {
        let mut nodes = vec![end];
        let mut current = end;
        while current != start {
            current = self.parent[current];
            nodes.push(current);
        }
        nodes.reverse();
        nodes
    }
}
