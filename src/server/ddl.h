/*-------------------------------------------------------------------------
 *
 * ddl.h
 *		Commands that need a database without our workers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BBM_SERVER_DDL_H
#define BBM_SERVER_DDL_H

#include "postgres.h"

#include "nodes/nodes.h"

extern Oid	bbm_ddl_database_needed(Node *statement, bool top_level);

#endif							/* BBM_SERVER_DDL_H */
