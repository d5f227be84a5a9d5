// Found before tt-metal's own file of this path when PREFIX/include/ttmem comes first among the include directories.
#pragma once

#include "../../../allocation_client.hpp"
