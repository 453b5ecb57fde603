/*-------------------------------------------------------------------------
 *
 * tree.h
 *		The leaves of a migration's table, and cutting them one by one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_TREE_H
#define BBM_TREE_H

#include "strategy.h"

extern bool bbm_tree_has_children(Oid relid);
extern List *bbm_tree_all(Oid root);
extern bool bbm_has_triggers(Oid relid);
extern List *bbm_tree_leaves(Oid root);
extern void bbm_tree_lock(Oid root, LOCKMODE lock);
extern bool bbm_tree_has(Oid root, Oid relid);
extern bool bbm_next_range(BbmTarget *target, const BbmClaimState *state, int size, bool at_once, BbmRange *range,
						   BbmLeaf **leaf);
extern void bbm_tree_tell(BbmTarget *target);
extern bool bbm_tree_has_joined(const BbmTarget *target, int pass);
extern bool bbm_tree_has_new(BbmTarget *target);

#endif							/* BBM_TREE_H */
