/*-------------------------------------------------------------------------
 *
 * handover.h
 *		Giving the table of migrations to another role.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SERVER_HANDOVER_H
#define BBM_SERVER_HANDOVER_H

#include "base/bbm.h"

#include "nodes/nodes.h"

extern Oid	bbm_handover_begin(Node *statement);
extern void bbm_handover_end(Oid before);

#endif							/* BBM_SERVER_HANDOVER_H */
